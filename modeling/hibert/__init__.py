"""Hi-BERT: segments of a long text or record, read one by one and then together."""
