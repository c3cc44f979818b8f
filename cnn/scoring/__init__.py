"""Scoring: from folders of images to predictions, spreadsheets and sorted folders."""
