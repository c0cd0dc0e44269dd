"""The tiny base models: they play on a laptop the part that Qwen2.5-VL-7B and Qwen-Image-Edit-2509 play in production."""
