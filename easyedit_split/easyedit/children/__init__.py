"""A folder for `PYTHONPATH`: Python processes that an EasyEdit script starts register our methods too."""
