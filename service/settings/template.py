"""The file that ``wetread init`` writes."""

TEMPLATE = """\
# Wetread: configuration. For research use only.
# Every key that is commented out shows its default. `wetread check` says what is right and what is wrong.

[node]
ae_title = "WETREAD"
# The address to listen on. Only this machine can reach 127.0.0.1; "0.0.0.0" listens on all interfaces.
# DICOM without TLS is readable on the wire: open it in a protected network only.
host = "127.0.0.1"
port = 11112
# accept_unknown_senders = false  # true: any calling AE title may send (its results have nowhere to go)
# accept_carried_along = true     # store SR, SEG, SC ... that travel with a study; they are never processed
# accept_private = false          # store private SOP classes and transfer syntaxes too; they are never processed
# maximum_pdu = 131072
# maximum_associations = 50
# maximum_associations_per_sender = 25
# encoders = 2                    # processes that encode results, each those of one model about one image at a time
# receivers = 1                   # more: processes beside the node's that receive, for many senders on many cores
# idle_seconds = 60.0            # for a sender to go on; a message may take 1 s more for each KiB of it
# artim_seconds = 30.0            # from the connection to the request for an association
# association_seconds = 14400.0   # an association as a whole
# user_identity = "ignore"        # users that senders name: "refuse" them, or "require" one of [node.users]
#[node.users]
#ct1 = "a passcode"               # better with TLS: without, passcodes are readable on the wire

# A second listener with DICOM TLS (1.2 and 1.3), once there is a certificate; docs/security.md tells more.
[tls]
# certificate (a path)            # PEM file of this node's certificate; read again when it changes, as the others are
# key (a path)                    # PEM file of its private key, not encrypted
# authorities (a path)            # PEM file of the authorities that sign the senders' certificates
# revoked (a path)                # PEM file of their lists of revoked certificates (CRLs), one of each authority
# port = 2762
# clients = "require"             # senders show a certificate; "optional", or "none"
# only = false                    # true: do not listen without TLS
# handshake_seconds = 10.0

# Who may send, by calling AE title, and which archive gets the results.
[senders.ORTHANC]
archive = "orthanc"
# priority = "header"             # what its images say is STAT comes first; "stat": all (an emergency department's
                                  # scanner), "routine": none
# addresses = []                  # only from these addresses and networks: ["10.1.0.0/16", "192.168.7.5"]
# certificates = []               # only with one of these by TLS: ["CN=ct1, O=Clinic", "sha256:9f86d0..."]

[archives.orthanc]
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242
# count = "c-find"                # ask how many images a series has; "qido", or "no"
# fetch = "no"                    # fetch those that did not come: "c-get", "c-move" (it must know WETREAD), "wado-rs"
# send = "c-store"                # how results go there; "stow-rs"
# parallel = 1                    # deliveries at a time
# objects_per_second = 0.0        # no faster than that; 0: no limit
# megabytes_per_second = 0.0
# windows = []                    # only at these times of the day: ["19:00-06:00"]
# answer_seconds = 60.0           # for it to answer each object
# dicomweb = ""                   # for "qido", "wado-rs", "stow-rs": "http://127.0.0.1:8042/dicom-web"
# dicomweb_token = ""             # bearer token for these; or
# dicomweb_user = ""              # a user, with
# dicomweb_password = ""
# commitment = "auto"             # ask for storage commitment, or whether it lists what it was sent; "require" the
                                  # former (it must know WETREAD with host and port), "verify" the latter, or "no"
# commitment_seconds = 600.0      # after so long without its report, ask again

# A table [archives.orthanc.tls] has it spoken to by TLS. It needs authorities, a PEM file of who signs its certificate;
# certificate and key are what it is shown (those of [tls] by default), name is what its certificate is for (its host).

[archives.orthanc.results]
# What this archive gets. It is asked what it takes, and what it refuses is replaced or left out, with a note.
# objects = ["SEG", "SC", "SR"]   # also "PDF", "RTSTRUCT", "GSPS", "KO", "HEATMAP", "HEATMAP-SEG" (docs/results.md)
# segmentation = "binary"         # "labelmap", "labelmap-rle", "labelmap-jpeg-ls", "labelmap-jpeg-2000", "fractional"
# report = "comprehensive-3d"     # "comprehensive", "enhanced": older viewers know only these
# captures = 24                   # at most so many slices as secondary captures, beside the summary page
# uid_root = "2.25"               # a registered root of your own, for all UIDs of results

# What is fetched by a rule, as if it had been sent, one table for each; for example all CT of the last days, at night:
#[fetch.nightly]
#archive = "orthanc"
#studies = "found"                # "received": earlier studies of the patients of what its sender has sent (priors = 2)
#modalities = ["CT"]
#description = "*CHEST*"          # StudyDescription
#days = 1                         # today and so many days before
#every_minutes = 60.0
#windows = ["19:00-06:00"]

[spool]
# Received images, intermediate files, results and the ledger. Needs room for a day of images.
path = "{spool}"
# keep_hours = 24.0               # how long files stay after all work on a series has ended
# duplicates = "keep-first"       # other content under a known SOP Instance UID: an operator decides; "keep-last": it
                                  # counts, and its series runs again; "reject": it is not taken
# sync = "each"                   # "group": one sync for all that wait; "off": a power cut takes what was acknowledged
# ready_mb = 256                  # files that are ready to be written over: instances are durable sooner; 0: none
# reserve_mb = 1024               # stays free for the ledger and results; below it, senders have to try again later
# url = ""                        # "s3://bucket/wetread": several nodes that share no folder, but an object store
# endpoint = ""                   # of an S3 that is not Amazon's; keys: in the environment, a profile or a role
# cache_mb = 20000                # with url: what copies of that which lies there may take in path

# The record of every series and stage: a file in the spool, or a PostgreSQL server that several nodes share.
[ledger]
# url = ""                        # "postgresql://wetread@db/wetread"; with a password: in WETREAD_LEDGER__URL
# node = ""                       # this node's name among several; with one it has its work back at once at a restart
# lease_seconds = 120.0           # after so long without a sign of life a node's work is given to others
# history_days = 90.0             # how long is kept what was done on a series
# known_days = 0.0                # how long a series is known, so that nothing runs when it comes again; 0: for ever

[series]
# A series starts when there is evidence enough that it is whole; `wetread jobs show KEY` tells which there was.
# quiet_seconds = 2.0             # silence that is enough by itself; it grows with the pauses that a sender makes ...
# quiet_ceiling_seconds = 60.0    # ... up to this, and is this where slices seem to be missing
# limit_seconds = 120.0           # after such a silence it runs as it is, even where the archive has more
# silent_seconds = 300.0          # the same while an association that carried it stays open

[engines]
# runtime = "auto"                # "openvino" on the CPU, "tensorrt" or "rtx" (TensorRT for RTX) on an NVIDIA GPU
# precision = "auto"              # "fp32", "fp16" (GPU), "bf16", "int8": auto is the fastest that suits each model
# models = []                     # names of the models to serve; empty: all
# folders = []                    # folders with model packages of your own
# compiled (a path)               # folder of engines built elsewhere, and of caches; else "engines" in the spool
# threads = 0                     # CPU threads for inference; 0: all
# hint = "latency"                # all threads for one inference; "throughput": some for each input of a batch
# devices = [0]                   # numbers of the GPUs; each gets a process with all models
# batch = 1                       # X-rays or patches that run at once, for a GPU or hint = "throughput" ...
# batch_seconds = 0.005           # ... and how long one may wait for others
# parallel = 2                    # images that are worked on at a time
# memory_mb = 0                   # what the engines of one device may take; 0: no limit, on a GPU what is free
# hang_seconds = 300.0            # after so long a single inference is ended, and its job tried again
# verify_hours = 24.0             # how often engines are compared with their golden outputs again
# build = true                    # on a GPU: build missing engines in the background while the CPU serves

# Each model says which images it is meant for; here that can be narrowed, one table for each model, for example:
#[routing.ct-lung]
#senders = ["CT1"]                # only from these calling AE titles
#kernel = ["FC5*", "!*H"]         # only these; letter case does not matter, a leading ! excludes
#enabled = false                  # not at all
#stat = { Pneumonia = 0.9 }       # finding one of these so surely has the work on its study come before all other
# docs/operating.md has all keys; `wetread route PATH` shows what would run on the images of a folder, and why not.

[retry]
# first_seconds = 5.0             # doubles with each attempt ...
# longest_seconds = 900.0         # ... up to this
# give_up_hours = 72.0

[http]
# host = "127.0.0.1"              # /health, /metrics and, at /, the operator's page
# port = 8080
# password = ""                   # for the operator's page; without one it is for this machine only

# STOW-RS, a second way in: POST to http://HOST:PORT/studies
[stow]
# enabled = false
# host = "127.0.0.1"
# port = 8081
# tls = false                     # HTTPS, with what [tls] names; or leave it to a proxy
# largest_mb = 4096               # a single instance
# maximum_connections = 16
# idle_seconds = 60.0             # without a byte; and a whole request may take ...
# longest_seconds = 3600.0
#[stow.tokens]
#ORTHANC = "..."                  # bearer token of a sender; `openssl rand -hex 32` makes one

[log]
# format = "json"                 # or "console"
# level = "info"
"""
"""What ``wetread init`` writes."""
