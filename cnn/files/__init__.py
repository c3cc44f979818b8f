"""Files: on a disk or in a bucket, listed, read, and written whole or not at all."""
