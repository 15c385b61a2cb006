"""Target `tflite`: one file for phones, browsers and small machines."""

from bit_keras.exporters.tflite.tflite_export import export_tflite as export_tflite
