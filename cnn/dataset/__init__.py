"""The dataset: from where images come from to the prepared dataset."""
