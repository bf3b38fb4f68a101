"""Training the compact model: segmenter, pool, autoencoder, tokenizer, denoiser, folder.

Each stage leaves its result in the run's folder and is not repeated when the run is resumed.
"""
