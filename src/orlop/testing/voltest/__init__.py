"""Whether a Docker volume plugin keeps its promises, and keeps them when things are killed.

Any plugin: nothing here knows how a plugin works inside, only what Docker and Podman send to it and what a user sees.

    python -m orlop.testing.voltest --subject orlop
    python -m orlop.testing.voltest --plugin-cmd 'my-plugin --listen {socket} --data {state}'
    python -m orlop.testing.voltest --socket /run/docker/plugins/mine.sock     # an already running plugin, by wire only

Four groups of checks, each check one function whose docstring says what is observed and why users care:

    P  protocol      what goes over the socket                   `orlop.testing.voltest.protocol`
    I  idempotence   asking twice, losing an answer, racing      `orlop.testing.voltest.idempotence`
    S  survival      kill -9 and restarts, with a real dockerd   `orlop.testing.voltest.survival`
                     kills, power cuts, full disks               `orlop.testing.voltest.durability`
    D  data          what files in a volume can do               `orlop.testing.voltest.data`
"""
