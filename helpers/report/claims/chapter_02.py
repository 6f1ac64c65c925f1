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
          says="El error de la ResNet-20 en CIFAR-10 no se distingue del que publican sus autores",
          measured="reported",
          holds="reported.ours.low < reported.theirs < reported.ours.high",
          found="su error es de {{ reported.ours | ic_pct(2) }}, y el publicado, "
                "de {{ reported.theirs | pct(2) }}"),
    Claim("se-confunden-4-y-9",
          says="El par que más confunden las dos redes de MNIST es el 4 y el 9, sin que se "
               "distinga del siguiente",
          measured="confused.mnist | length == 2",
          holds="confused.mnist.values() | map(attribute='pair') | unique | list == [(4, 9)] "
                "and not confused.mnist.values() | selectattr('stands_out') | list",
          found="confunden {{ confused.mnist.values() | map(attribute='named') | unique | lista }}"),
    Claim("se-confunden-gato-y-perro",
          says="El par que más confunden las dos redes de CIFAR-10 es el gato y el perro, más que "
               "ningún otro",
          measured="confused.cifar10 | length == 2",
          holds="confused.cifar10.values() | map(attribute='named') | unique | list == ['gato con perro'] "
                "and confused.cifar10.values() | selectattr('stands_out') | list | length == 2",
          found="confunden {{ confused.cifar10.values() | map(attribute='named') | unique | lista }}"),
    Claim("bien-calibradas",
          says="El error de calibración de las cuatro redes no pasa de 3 %",
          measured="calibration | length == 4",
          holds="calibration.values() | map(attribute='error.value') | max < 0.03",
          found="es de {{ calibration.values() | map(attribute='error.value') | rango_pct }}"),
    Claim("lenet-de-mnist-pierde-gradiente",
          says="La LeNet-5 de MNIST pierde la parte del gradiente debida a la clase verdadera en más de la "
               "cuarta parte de las imágenes, y las demás redes en menos de una de cada cincuenta",
          measured="beyond.mnist | length == 2 and beyond.cifar10 | length == 2",
          holds="beyond.mnist.lenet.low > 0.25 and max(beyond.mnist.resnet.value, "
                "beyond.cifar10.lenet.value, beyond.cifar10.resnet.value) < 0.02",
          found="la pierde en el {{ beyond.mnist.lenet | ic_pct }} de las imágenes, y en las demás redes "
                "en {{ [beyond.mnist.resnet.value, beyond.cifar10.lenet.value, "
                "beyond.cifar10.resnet.value] | rango_pct }}"),
)
