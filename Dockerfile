# JupyterLab on the tutorials, from the package registries (PyPI, Debian) alone. From the checkout:
#   docker build --tag zsd-lab .
#   docker run --rm --publish 127.0.0.1:8888:8888 zsd-lab       prints an address with a token of its own; torch from PyPI brings GBs of CUDA
# No key is in the image: `docker run --env OPENAI_API_KEY …` hands on yours. `--volume zsd:/lab/tutorials/zsd-work` keeps what was asked.
FROM python:3.11-slim AS build
WORKDIR /source
COPY settings.ini setup.py pyproject.toml README.md LICENSE ./
COPY data data
COPY nbs/experiments nbs/experiments
COPY zero_shot_distill zero_shot_distill
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
# For the embedded teacher, whose wheel does not bring it.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
RUN pip install --no-cache-dir --constraint /wheels/constraints.txt /wheels/*.whl
RUN useradd --create-home --home-dir /lab --uid 1000 reader && install --directory --owner reader /lab/tutorials /lab/tutorials/zsd-work
COPY --chown=reader nbs/tutorials /lab/tutorials
USER reader
WORKDIR /lab/tutorials
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser"]
