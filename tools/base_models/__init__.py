"""The tiny base models: on a laptop they play the part of Qwen2.5-VL-7B and Qwen-Image-Edit-2509."""
