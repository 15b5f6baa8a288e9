"""What the AWS account is asked for: its settings, clients, errors, buckets, keys and secrets."""
