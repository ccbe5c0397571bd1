"""Figure primitives that know no modality."""
