"""Objects by key, on S3 and on local disks."""
