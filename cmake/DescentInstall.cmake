# Install rules; filled by the folders' DESCENT_LIBRARIES.
