"""What chapter 2 asserts of the networks before any attack."""
from helpers.report.claims.record import Claim

CLAIMS = (
    Claim("resnet-supera-a-lenet",
          says="La ResNet-20 acierta más que la LeNet-5 en MNIST y en CIFAR-10",
          measured="gains | length == 2",
          holds="gains.mnist.low > 0 and gains.cifar10.low > 0",
          found="acierta {{ gains.mnist | puntos(2) }} puntos más en MNIST y {{ gains.cifar10 | puntos }} en "
                "CIFAR-10"),
    Claim("resnet-como-sus-autores",
          says="La ResNet-20 de CIFAR-10 tiene el error que publican sus autores, 8.75 %",
          measured="reported",
          holds="reported.ours.low < reported.theirs < reported.ours.high",
          found="su error es de {{ reported.ours | ic_pct(2) }}"),
    Claim("se-confunden-4-y-9",
          says="Las dos redes de MNIST confunden sobre todo el 4 con el 9",
          measured="confused.mnist | length == 2",
          holds="confused.mnist.values() | map(attribute='pair') | unique | list == [(4, 9)]",
          found="confunden {{ confused.mnist.values() | map(attribute='named') | unique | lista }}"),
    Claim("se-confunden-gato-y-perro",
          says="Las dos redes de CIFAR-10 confunden sobre todo el gato con el perro",
          measured="confused.cifar10 | length == 2",
          holds="confused.cifar10.values() | map(attribute='named') | unique | list == ['gato con perro']",
          found="confunden {{ confused.cifar10.values() | map(attribute='named') | unique | lista }}"),
    Claim("bien-calibradas",
          says="El error de calibración de las cuatro redes no pasa de 3 %",
          measured="calibration | length == 4",
          holds="calibration.values() | map(attribute='error.value') | max < 0.03",
          found="es de {{ calibration.values() | map(attribute='error.value') | rango_pct }}"),
    Claim("lenet-de-mnist-pierde-gradiente",
          says="La LeNet-5 de MNIST tiene en más de la cuarta parte de las imágenes un margen que pasa de 24 "
               "ln 2, y las demás redes en menos de una de cada cincuenta",
          measured="beyond.mnist | length == 2 and beyond.cifar10 | length == 2",
          holds="beyond.mnist.lenet.low > 0.25 and max(beyond.mnist.resnet.value, "
                "beyond.cifar10.lenet.value, beyond.cifar10.resnet.value) < 0.02",
          found="pasa de ahí en el {{ beyond.mnist.lenet | ic_pct }} de las imágenes, y en las demás redes "
                "en {{ [beyond.mnist.resnet.value, beyond.cifar10.lenet.value, "
                "beyond.cifar10.resnet.value] | rango_pct }}"),
)
