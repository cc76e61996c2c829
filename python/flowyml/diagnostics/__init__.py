"""What messages are made of: whose frames a traceback shows, values in a few words, near matches."""
