# Needs Go and git. The peers that tests and benchmarks meet are installed by apt
# when run as root or through sudo; otherwise one line says what to install.

export CGO_ENABLED = 0

OUT     ?= out
PREFIX  ?= /usr/local
UNITDIR ?= $(PREFIX)/lib/systemd/system
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
GOLANGCI ?= github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: all build install demo test vet race fuzz bench lint man peers clean

all: build

build:
	go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/vmdisk ./cmd/vmdisk

install: build
	install -D -m 0755 bin/vmdisk $(DESTDIR)$(PREFIX)/bin/vmdisk
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 0644 docs/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -d $(DESTDIR)$(PREFIX)/share/man/man7
	install -m 0644 docs/man/*.7 $(DESTDIR)$(PREFIX)/share/man/man7/
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	bin/vmdisk completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vmdisk
	bin/vmdisk completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_vmdisk
	bin/vmdisk completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/vmdisk.fish
	install -d $(DESTDIR)$(UNITDIR)
	for u in packaging/systemd/*; do sed 's,@PREFIX@,$(PREFIX),' "$$u" > $(DESTDIR)$(UNITDIR)/"$${u##*/}" || exit 1; done

# The fast-zero study: one image, two servers, every strategy. No peers needed.
demo: build
	bin/vmdisk lab run fast-zero --out $(OUT)/fast-zero

test: peers vet
	scripts/test.sh

vet:
	go vet ./...
	GOARCH=arm64 go vet ./...

# The tests again, under the race detector.
race: peers
	scripts/race.sh

# Each fuzz target for FUZZTIME, such as 10m; 3 s by default.
fuzz:
	scripts/fuzz.sh

# Ours and the peers in turn, medians and CPU per operation.
bench: peers build
	go run ./versus
	go run ./bench/agree -vmdisk bin/vmdisk

lint:
	go run $(GOLANGCI) run ./...

man:
	rm -f docs/man/*.[17]
	go run ./cmd/vmdisk man docs/man

peers:
	scripts/peers.sh

clean:
	rm -rf bin out
