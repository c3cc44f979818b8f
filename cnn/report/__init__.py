"""Reports: predictions become an evaluation, a mix and an HTML page."""
