package server

import (
	"fmt"
	"strconv"
	"strings"
)

// LogConfig is gathered from the [logger_root], [handler_…] and [formatter_…] sections.
type LogConfig struct {
	Level       string // DEBUG, INFO, WARNING, ERROR, CRITICAL
	File        string // empty: standard error
	MaxBytes    int64  // rotate the file beyond this; 0: never
	BackupCount int    // rotated files to keep

	HandlerLevel string      // if not empty, lines below are left out here
	Format       string      // of a line, as Python's logging has it; empty: the usual one
	DateFormat   string      // of strftime
	Others       []LogConfig // more handlers; their Level, and Others, are not used
}

// Files are those that the log is written to.
func (c LogConfig) Files() (names []string) {
	for _, h := range append([]LogConfig{c}, c.Others...) {
		if h.File != "" {
			names = append(names, h.File)
		}
	}
	return names
}

// applyLog understands as much of Python's logging configuration as a daemon's log needs:
// the root logger's level and its handlers, which are files, with or without rotation,
// and standard error, each with a level and a format of its own.
func (ini iniFile) applyLog(log *LogConfig) error {
	root := ini.section("logger_root")
	level, err := levelOf(root, log.Level)
	if err != nil {
		return err
	}
	names := "logfile"
	if h, ok := root["handlers"]; ok {
		names = h.text
	}
	var all []LogConfig
	for name := range strings.SplitSeq(names, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		h := *log
		if err := ini.applyHandler(name, &h); err != nil {
			return err
		}
		all = append(all, h)
	}
	if len(all) == 0 {
		return fmt.Errorf("%s: no handler for the log: name one, such as logfile", root["handlers"].where)
	}
	*log = all[0]
	log.Level, log.Others = level, all[1:]
	return nil
}

func levelOf(section map[string]iniValue, fallback string) (string, error) {
	level, ok := section["level"]
	if !ok {
		return fallback, nil
	}
	name := strings.ToUpper(level.text)
	if _, ok := logLevels[name]; !ok {
		return "", fmt.Errorf("%s: unknown level %q: use DEBUG, INFO, WARNING, ERROR or CRITICAL", level.where, level.text)
	}
	return name, nil
}

func (ini iniFile) applyHandler(name string, h *LogConfig) (err error) {
	section := ini.section("handler_" + name)
	class := section["class"].text
	switch {
	case class == "" && name == "stderr" || strings.HasSuffix(class, "StreamHandler"):
		h.File = ""
	case class == "" && name == "logfile" || strings.HasSuffix(class, "RotatingFileHandler"):
	case strings.HasSuffix(class, "FileHandler"):
		h.MaxBytes = 0
	case class == "":
		return fmt.Errorf("log handler %q has no section [handler_%s] with a class", name, name)
	default:
		return fmt.Errorf("%s: log handlers of class %q are not supported: use a FileHandler, RotatingFileHandler or StreamHandler", section["class"].where, class)
	}
	if h.HandlerLevel, err = levelOf(section, ""); err != nil {
		return err
	}
	formatter := "long"
	if f, ok := section["formatter"]; ok {
		formatter = f.text
	}
	format := ini.section("formatter_" + formatter)
	h.Format, h.DateFormat = format["format"].text, format["datefmt"].text
	if strings.HasSuffix(class, "StreamHandler") || h.File == "" {
		return nil
	}
	if args, ok := section["args"]; ok {
		if h.File = firstQuoted(args.text); h.File == "" {
			return fmt.Errorf("%s: no file name in %q", args.where, args.text)
		}
	}
	if kwargs := section["kwargs"].text; kwargs != "" {
		h.MaxBytes = numberAfter(kwargs, "maxBytes", h.MaxBytes)
		h.BackupCount = int(numberAfter(kwargs, "backupCount", int64(h.BackupCount)))
	}
	return nil
}

func firstQuoted(s string) string {
	at := strings.IndexAny(s, `"'`)
	if at < 0 {
		return ""
	}
	rest := s[at+1:]
	end := strings.IndexByte(rest, s[at])
	if end < 0 {
		return ""
	}
	return rest[:end]
}

func numberAfter(s, key string, fallback int64) int64 {
	_, rest, ok := strings.Cut(s, key)
	if !ok {
		return fallback
	}
	digits := strings.TrimLeft(rest, `"'=: `)
	end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(digits)
	}
	if n, err := strconv.ParseInt(digits[:end], 10, 64); err == nil {
		return n
	}
	return fallback
}
