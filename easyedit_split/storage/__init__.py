"""Files that are whole or not there, one writer a folder, and replies that are paid for once."""
