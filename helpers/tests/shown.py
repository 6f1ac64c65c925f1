"""The networks that the tests of the explorer's states and of its page show."""
from helpers import networks

# A good network of MNIST and a poor one of CIFAR-10.
RECIPES = (networks.RECIPES["mnist", "lenet"],
           networks.Recipe("cifar10", "lenet", epochs=2, train_size=1000))
