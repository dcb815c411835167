// A provider that has nothing but a schema: the file schema.json beside its own executable, in the form of
// `terraform providers schema -json`. Terraform verifies a configuration with it, and plans and applies one where
// `mock_provider` stands for the provider; it creates and reads nothing. SCHEMAS_OF, if set, has the types of resources
// that it knows: Terraform needs a second for what a configuration does not use.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

type attribute struct {
	Type     json.RawMessage `json:"type"`
	Nested   *nested         `json:"nested_type"`
	Required bool            `json:"required"`
	Optional bool            `json:"optional"`
	Computed bool            `json:"computed"`
}

type nested struct {
	Attributes map[string]attribute `json:"attributes"`
	Nesting    string               `json:"nesting_mode"`
}

type blockType struct {
	Nesting string `json:"nesting_mode"`
	Block   block  `json:"block"`
	Min     int64  `json:"min_items"`
	Max     int64  `json:"max_items"`
}

type block struct {
	Attributes map[string]attribute `json:"attributes"`
	BlockTypes map[string]blockType `json:"block_types"`
}

type schema struct {
	Block block `json:"block"`
}

type providerSchemas struct {
	Provider   schema            `json:"provider"`
	Meta       schema            `json:"provider_meta"`
	Resources  map[string]schema `json:"resource_schemas"`
	Data       map[string]schema `json:"data_source_schemas"`
	Ephemerals map[string]schema `json:"ephemeral_resource_schemas"`
}

var attributeNesting = map[string]tfprotov6.SchemaObjectNestingMode{
	"single": tfprotov6.SchemaObjectNestingModeSingle,
	"list":   tfprotov6.SchemaObjectNestingModeList,
	"set":    tfprotov6.SchemaObjectNestingModeSet,
	"map":    tfprotov6.SchemaObjectNestingModeMap,
}

var blockNesting = map[string]tfprotov6.SchemaNestedBlockNestingMode{
	"single": tfprotov6.SchemaNestedBlockNestingModeSingle,
	"list":   tfprotov6.SchemaNestedBlockNestingModeList,
	"set":    tfprotov6.SchemaNestedBlockNestingModeSet,
	"map":    tfprotov6.SchemaNestedBlockNestingModeMap,
}

func ofAttributes(found map[string]attribute) ([]*tfprotov6.SchemaAttribute, error) {
	var attributes []*tfprotov6.SchemaAttribute
	for _, name := range sorted(found) {
		each := found[name]
		one := &tfprotov6.SchemaAttribute{
			Name: name, Required: each.Required, Optional: each.Optional, Computed: each.Computed,
		}
		var err error
		if each.Nested != nil {
			one.NestedType = &tfprotov6.SchemaObject{Nesting: attributeNesting[each.Nested.Nesting]}
			one.NestedType.Attributes, err = ofAttributes(each.Nested.Attributes)
		} else {
			one.Type, err = tftypes.ParseJSONType(each.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		attributes = append(attributes, one)
	}
	return attributes, nil
}

func ofBlock(found block) (*tfprotov6.SchemaBlock, error) {
	attributes, err := ofAttributes(found.Attributes)
	if err != nil {
		return nil, err
	}
	made := &tfprotov6.SchemaBlock{Attributes: attributes}
	for _, name := range sorted(found.BlockTypes) {
		each := found.BlockTypes[name]
		inner, err := ofBlock(each.Block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		made.BlockTypes = append(made.BlockTypes, &tfprotov6.SchemaNestedBlock{
			TypeName: name, Block: inner, Nesting: blockNesting[each.Nesting], MinItems: each.Min, MaxItems: each.Max,
		})
	}
	return made, nil
}

func ofSchemas(found map[string]schema) (map[string]*tfprotov6.Schema, error) {
	wanted := os.Getenv("SCHEMAS_OF")
	made := map[string]*tfprotov6.Schema{}
	for name, each := range found {
		if wanted != "" && !slices.Contains(strings.Split(wanted, ","), name) {
			continue
		}
		inner, err := ofBlock(each.Block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		made[name] = &tfprotov6.Schema{Block: inner}
	}
	return made, nil
}

func sorted[V any](found map[string]V) []string {
	var names []string
	for name := range found {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// What Terraform does not call beside `mock_provider` is left to the embedded interface, which is nil.
type provider struct {
	tfprotov6.ProviderServer
	schemas func() (*tfprotov6.GetProviderSchemaResponse, error)
}

func (p provider) GetProviderSchema(context.Context, *tfprotov6.GetProviderSchemaRequest) (*tfprotov6.GetProviderSchemaResponse, error) {
	return p.schemas()
}

func (p provider) ValidateProviderConfig(_ context.Context, request *tfprotov6.ValidateProviderConfigRequest) (*tfprotov6.ValidateProviderConfigResponse, error) {
	return &tfprotov6.ValidateProviderConfigResponse{PreparedConfig: request.Config}, nil
}

func (p provider) ConfigureProvider(context.Context, *tfprotov6.ConfigureProviderRequest) (*tfprotov6.ConfigureProviderResponse, error) {
	return &tfprotov6.ConfigureProviderResponse{}, nil
}

func (p provider) ValidateResourceConfig(context.Context, *tfprotov6.ValidateResourceConfigRequest) (*tfprotov6.ValidateResourceConfigResponse, error) {
	return &tfprotov6.ValidateResourceConfigResponse{}, nil
}

func (p provider) ValidateDataResourceConfig(context.Context, *tfprotov6.ValidateDataResourceConfigRequest) (*tfprotov6.ValidateDataResourceConfigResponse, error) {
	return &tfprotov6.ValidateDataResourceConfigResponse{}, nil
}

func (p provider) ValidateEphemeralResourceConfig(context.Context, *tfprotov6.ValidateEphemeralResourceConfigRequest) (*tfprotov6.ValidateEphemeralResourceConfigResponse, error) {
	return &tfprotov6.ValidateEphemeralResourceConfigResponse{}, nil
}

func (p provider) UpgradeResourceState(_ context.Context, request *tfprotov6.UpgradeResourceStateRequest) (*tfprotov6.UpgradeResourceStateResponse, error) {
	schemas, err := p.schemas()
	if err != nil {
		return nil, err
	}
	ofState := schemas.ResourceSchemas[request.TypeName].ValueType()
	value, err := request.RawState.Unmarshal(ofState)
	if err != nil {
		return nil, err
	}
	state, err := tfprotov6.NewDynamicValue(ofState, value)
	return &tfprotov6.UpgradeResourceStateResponse{UpgradedState: &state}, err
}

func (p provider) PlanResourceChange(_ context.Context, request *tfprotov6.PlanResourceChangeRequest) (*tfprotov6.PlanResourceChangeResponse, error) {
	return &tfprotov6.PlanResourceChangeResponse{Diagnostics: unmocked(request.TypeName)}, nil
}

func (p provider) ReadDataSource(_ context.Context, request *tfprotov6.ReadDataSourceRequest) (*tfprotov6.ReadDataSourceResponse, error) {
	return &tfprotov6.ReadDataSourceResponse{Diagnostics: unmocked(request.TypeName)}, nil
}

func (p provider) StopProvider(context.Context, *tfprotov6.StopProviderRequest) (*tfprotov6.StopProviderResponse, error) {
	return &tfprotov6.StopProviderResponse{}, nil
}

func unmocked(name string) []*tfprotov6.Diagnostic {
	return []*tfprotov6.Diagnostic{{
		Severity: tfprotov6.DiagnosticSeverityError,
		Summary:  name + ": this provider has schemas alone, and makes and reads nothing",
		Detail:   "Next: add a mock_provider block for it to the test.",
	}}
}

func read() (found providerSchemas, err error) {
	executable, err := os.Executable()
	if err != nil {
		return found, err
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(executable), "schema.json"))
	if err != nil {
		return found, err
	}
	return found, json.Unmarshal(text, &found)
}

func respond() (*tfprotov6.GetProviderSchemaResponse, error) {
	found, err := read()
	if err != nil {
		return nil, err
	}
	// Terraform then reads it from the first process alone, as with the real provider.
	response := &tfprotov6.GetProviderSchemaResponse{
		ServerCapabilities: &tfprotov6.ServerCapabilities{GetProviderSchemaOptional: true},
	}
	own, err := ofBlock(found.Provider.Block)
	if err != nil {
		return nil, err
	}
	meta, err := ofBlock(found.Meta.Block)
	if err != nil {
		return nil, err
	}
	response.Provider, response.ProviderMeta = &tfprotov6.Schema{Block: own}, &tfprotov6.Schema{Block: meta}
	if response.ResourceSchemas, err = ofSchemas(found.Resources); err != nil {
		return nil, err
	}
	if response.DataSourceSchemas, err = ofSchemas(found.Data); err != nil {
		return nil, err
	}
	response.EphemeralResourceSchemas, err = ofSchemas(found.Ephemerals)
	return response, err
}

func main() {
	served := provider{schemas: sync.OnceValues(respond)}
	if err := tf6server.Serve("registry.terraform.io/hashicorp/schemas", func() tfprotov6.ProviderServer { return served }); err != nil {
		log.Fatal(err)
	}
}
