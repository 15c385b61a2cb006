"""What stands in for the server that `docker compose up` starts."""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tests.documentation.standing import SMALL
from tests.exporters.stand_in_server import stand_in_server

#: The address of the published server, as pages have it.
GRPC = "localhost:8500"

#: The network that the pages serve.
SERVED = "bit_r50x1.distilled_in1k_224"


class Server:
    """Serves the folder `models` of a page's folder with the published configuration.

    Args:
        folder: Path. Where the page is followed.
        closing: contextlib.ExitStack. Stops the server.
    """

    def __init__(self, folder, closing):
        config = model_server_config_pb2.ModelServerConfig()
        text_format.Parse((folder / "export/serving/models.config").read_text(), config)
        for model in config.model_config_list.config:
            model.base_path = str(folder / "models" / Path(model.base_path).name)
        self._server = closing.enter_context(stand_in_server(config))

    @property
    def options(self):
        """What a client's command line needs beyond that of the page."""
        return ["--url", self._server.url]

    def seen_by(self, source):
        """A program in Python that asks this server, and knows the network that is in it."""
        return source.replace(GRPC, self._server.grpc).replace(SERVED, SMALL)
