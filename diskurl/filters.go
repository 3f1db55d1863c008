package diskurl

// filters are the filters of this build.
var filters = map[string]filterKind{}

// checkFilters refuses filters that do not exist, before anything is opened.
func checkFilters(specs []FilterSpec) error {
	for _, s := range specs {
		if _, err := s.kind(); err != nil {
			return err
		}
	}
	return nil
}
