package main

import (
	"bytes"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// readChart is a chart that was read, and its schema, which Helm would compile for each upgrade: a seventh of this
// program's CPU time.
type readChart struct {
	*chart.Chart
	schema *jsonschema.Schema
}

func newReadChart(read *chart.Chart) *readChart {
	return &readChart{Chart: read, schema: compiledSchema(read.Schema)}
}

// compiledSchema is nil if there is none, or none that compiles: then Helm is to say so.
func compiledSchema(text []byte) *jsonschema.Schema {
	if len(text) == 0 {
		return nil
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil
	}
	compiler := jsonschema.NewCompiler()
	const name = "file:///values.schema.json"
	if err := compiler.AddResource(name, document); err != nil {
		return nil
	}
	compiled, err := compiler.Compile(name)
	if err != nil {
		return nil
	}
	return compiled
}

// accepts is whether these values certainly keep to the schema. If not, Helm has to look: its message says what is wrong.
func (c *readChart) accepts(values map[string]any) bool {
	if c.schema == nil {
		return false
	}
	all, err := util.CoalesceValues(c.Chart, values)
	return err == nil && c.schema.Validate(all.AsMap()) == nil
}
