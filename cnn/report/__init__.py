"""What people read: predictions become an evaluation, a mix, and a report."""
