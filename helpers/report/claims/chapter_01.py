"""What chapter 1 asserts of the images."""
from helpers.report.claims.record import Claim, Draft

CLAIMS = (
    Claim("mnist-casi-todo-fondo",
          says="Cuatro de cada cinco píxeles de MNIST valen exactamente cero, y de los demás ni la tercera "
               "parte es blanca",
          holds="0.75 < strokes.zero and strokes.white < 1 / 3",
          found="vale cero el {{ strokes.zero | pct }} de los píxeles, y del trazo es blanco el "
                "{{ strokes.white | pct }}"),
    Claim("mnist-centrado",
          says="El lado mayor de casi todos los dígitos mide 20 píxeles, nunca más, y su centro de masa está "
               "en el centro",
          holds="strokes.longest == 20 and strokes.of_twenty > 0.99 and strokes.centred > 0.999",
          found="mide 20 píxeles en el {{ strokes.of_twenty | pct(2) }} de las imágenes, a lo más "
                "{{ strokes.longest }}, y está centrado el {{ strokes.centred | pct(2) }}"),
    Claim("lenet-yerra-pocas",
          says="La LeNet-5 de MNIST se equivoca en menos de una de cada cien imágenes de prueba",
          holds="0 < wrong | length < 0.01 * (y | length)",
          found="se equivoca en {{ wrong | length }} de {{ y | length | num }}"),
    Claim("mnist-no-del-todo-equilibrado",
          says="La clase más frecuente de la prueba de MNIST tiene más imágenes de las que le tocarían, el "
               "10 %",
          holds="0.10 < classes.share < 0.12",
          found="la más frecuente tiene el {{ classes.share | pct(2) }} de las imágenes"),
    Claim("cifar10-casi-sin-negro",
          says="Menos de uno de cada cien píxeles de CIFAR-10 vale cero",
          holds="black < 0.01",
          found="vale cero el {{ black | pct }} de los píxeles"),
    Claim("cifar10-llena-el-intervalo",
          says="Los canales de CIFAR-10 valen en promedio cerca de la mitad del intervalo y se desvían más "
               "de 60 niveles",
          holds="colours | map(attribute=0) | min > 100 and colours | map(attribute=0) | max < 155 "
                "and colours | map(attribute=1) | min > 60",
          found="valen en promedio de {{ colours | map(attribute=0) | rango(1) }} niveles, y se desvían de "
                "{{ colours | map(attribute=1) | rango(1) }}"),
    Claim("radio-usual-de-mnist-es-grande",
          says="En MNIST una perturbación del radio usual puede medir más que la distancia mediana a otra "
               "clase",
          holds="radii.MNIST.reference_share > 1",
          found="mide a lo más el {{ radii.MNIST.reference_share | pct(0) }} de esa distancia"),
    Claim("radio-usual-de-cifar10-es-chico",
          says="En CIFAR-10 una perturbación del radio usual no mide ni la quinta parte de la distancia "
               "mediana a otra clase",
          holds="radii['CIFAR-10'].reference_share < 0.2",
          found="mide a lo más el {{ radii['CIFAR-10'].reference_share | pct(0) }} de esa distancia"),
    Claim("mnist-58527",
          says="El entrenamiento de MNIST tiene 60,000 imágenes; 58,527 es el tamaño de una de sus fuentes, "
               "SD-1",
          holds="mnist.y_train | length == 60000",
          found="el entrenamiento de MNIST tiene {{ mnist.y_train | length | num }} imágenes; 58,527 es el "
                "tamaño de SD-1, y de cada fuente se tomaron 30,000",
          draft=Draft("de los 60,000 dígitos de entrenamiento de MNIST, 58,527 los escribieron 500 "
                      "estudiantes y el resto empleados del censo", "§ 2.1.1",
                      "se refuta: la mitad es de cada fuente")),
)
