package jobfile

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// maxExpanded bounds one line after substitution, in bytes.
const maxExpanded = 64 << 10

// expand substitutes ${NAME} from the environment and the keywords $pagesize,
// $mb_memory and $ncpus. A line with a keyword is also calculated, as fio does.
func (p *Parser) expand(pos Pos, line string) (string, error) {
	out, err := p.expandEnv(pos, line)
	if err != nil {
		return "", err
	}
	calculated := replaceKeywords(out)
	if calculated == out {
		return out, nil
	}
	name, value, ok := strings.Cut(calculated, "=")
	if !ok || !strings.ContainsAny(value, "+-*/") || strings.Contains(value, "'") {
		return calculated, nil
	}
	v, err := evaluate(value, plainNumber)
	if err != nil {
		return "", errAt(pos, "cannot calculate %q: %w", strings.TrimSpace(value), err)
	}
	return name + "=" + strconv.FormatInt(int64(v), 10), nil
}

func (p *Parser) expandEnv(pos Pos, line string) (string, error) {
	getenv := p.Getenv
	if getenv == nil {
		getenv = os.LookupEnv
	}
	var b strings.Builder
	for {
		i := strings.Index(line, "${")
		if i < 0 {
			break
		}
		end := strings.IndexByte(line[i:], '}')
		if end < 0 {
			return "", errAt(pos, "${ without a closing }")
		}
		name := line[i+2 : i+end]
		value, ok := getenv(name)
		if !ok && !p.Strict {
			return "", errAt(pos, "environment variable %s is not set", name)
		}
		b.WriteString(line[:i])
		b.WriteString(value)
		line = line[i+end+1:]
		if b.Len() > maxExpanded {
			return "", errAt(pos, "line longer than %d bytes after substitution", maxExpanded)
		}
	}
	b.WriteString(line)
	return b.String(), nil
}

func replaceKeywords(s string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	return strings.NewReplacer(
		"$pagesize", strconv.Itoa(os.Getpagesize()),
		"$mb_memory", strconv.FormatInt(memoryBytes()>>20, 10),
		"$ncpus", strconv.Itoa(runtime.NumCPU()),
	).Replace(s)
}

// memoryBytes returns the machine's memory as /proc/meminfo tells it.
func memoryBytes() int64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}
