# trafficmgr as a container beside the groups that it runs; config/compose.yaml says how it is run.
#
#   docker build -t trafficmgr .
#
# BASE is any image with Python 3.11 or newer, pip, and a shell. INSTALL is what pip is told to
# install: the package of this folder, with exactly the versions of constraints.txt.

ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS made
ARG INSTALL="-c constraints.txt ."
WORKDIR /made
COPY . .
RUN python3 -m venv --without-pip /opt/trafficmgr \
 && python3 -m pip --python /opt/trafficmgr/bin/python install \
      --no-cache-dir --disable-pip-version-check --only-binary=:all: ${INSTALL}

# Only what was installed, from wheels: no compiler, no sources, no second pip.
FROM ${BASE}
COPY --from=made /opt/trafficmgr /opt/trafficmgr
RUN mkdir -p -m 700 /var/lib/trafficmgr && chown 10001:10001 /var/lib/trafficmgr
ENV PATH=/opt/trafficmgr/bin:${PATH} \
    HOME=/var/lib/trafficmgr \
    TRAFFICMGR_CONFIG=/etc/trafficmgr/trafficmgr.yaml
VOLUME /var/lib/trafficmgr

# Nobody in particular. It needs the group of /var/run/docker.sock besides (`--group-add`, or
# `group_add` in compose.yaml), which differs from machine to machine, and is then as good as root:
# whoever speaks to Docker can do everything on the machine.
USER 10001:10001

HEALTHCHECK --interval=30s --timeout=20s --start-period=30s --retries=3 \
  CMD ["trafficmgr", "status", "--json"]
ENTRYPOINT ["trafficmgr"]
CMD ["run", "-c", "/etc/trafficmgr/trafficmgr.yaml"]
