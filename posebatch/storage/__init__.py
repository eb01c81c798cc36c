"""Objects by key, on S3 and on local disks. Errors of the disk and of botocore are translated here."""
