"""Statistics of ImageNet's red, green and blue channels, for pixels from 0 to 1, as torchvision's networks take."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
