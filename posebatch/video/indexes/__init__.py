"""Indexes of containers that list no packets: made by a scan of the packets, and used to cut and to read segments."""
