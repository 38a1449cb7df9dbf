"""The same speed for a Keras model that you already have."""
