# mil in a container; nothing of patients goes into the image.
#   docker build -t mil .
#   docker run --rm -v "$PWD:/data" -w /data mil train data.cohort=cohort.csv data.features=features/
# A hospital without a network builds it where there is one, or sets PIP_FIND_LINKS and PIP_NO_INDEX to its own folder of wheels.
FROM python:3.11-slim
COPY . /opt/mil
# torch first and pinned: a looser range would install gigabytes of CUDA
RUN cd /opt/mil && python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt torch \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt ".[zarr,sign]"
RUN useradd --create-home mil
USER mil
ENV PATH=/opt/venv/bin:$PATH
ENTRYPOINT ["mil"]
