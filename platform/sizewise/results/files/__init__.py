"""What is known of a folder of studies before any table: which there are, what is missing, what was used."""
