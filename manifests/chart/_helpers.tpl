{{- /* What objects are called: nereid, with the release's name in front, unless that has it already. */ -}}
{{- define "nereid.fullname" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- if gt (len $name) 50 -}}{{- fail (printf "the release's name: got %s, expected 43 characters at most" .Release.Name) -}}{{- end -}}
{{- $name -}}
{{- end -}}

{{- /* Which components are on, as JSON: those of the values, and what they need. */ -}}
{{- define "nereid.on" -}}
{{- $values := .Values -}}
{{- $on := dict "service" (eq .Values.mode "plain") "noNamespace" (not .Values.production.quota.enabled) -}}
{{- range $name, $component := include "nereid.components" . | fromYaml -}}
{{- if get (get $values $name) "enabled" -}}
{{- if not (has $values.mode $component.modes) -}}
{{- fail (printf "%s.enabled: got mode %s, expected %s" $name $values.mode (join " or " $component.modes)) -}}
{{- end -}}
{{- range prepend $component.needs $name }}{{ $_ := set $on . true }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $on | toJson -}}
{{- end -}}

{{- /* An image with its registry, its tag or its digest: without one, any person could register it. Of (list path value). */ -}}
{{- define "nereid.image" -}}
{{- $image := index . 1 -}}
{{- $repository := $image.repository | default "nothing" -}}
{{- if not (regexMatch "^(localhost|[^/]*[.:][^/]*)/." $repository) -}}
{{- fail (printf "%s.repository: got %s, expected a registry with the image, such as registry.acme.example/nereid/%s" (index . 0) $repository (index . 0 | trimSuffix ".image")) -}}
{{- end -}}
{{- $repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag }}{{ end -}}
{{- end -}}

{{- /* What the manifests say in a place, with what the user says over it, as YAML, a single value bare; nothing where that
is empty. A request that is its limit there (memory in production, GPUs) follows the user's. Of (list root place value). */ -}}
{{- define "nereid.slot" -}}
{{- $theirs := index (include (printf "nereid.%s" (index . 1)) (index . 0) | fromYaml) "v" -}}
{{- $ours := index . 2 -}}
{{- if kindIs "map" $ours -}}
{{- range $name, $limit := dig "limits" dict $ours -}}
{{- if eq (dig "limits" $name "" $theirs) (dig "requests" $name "none" $theirs) }}{{ $_ := set $theirs.requests $name $limit }}{{ end -}}
{{- end }}{{ end -}}
{{- $value := index (include "nereid.over" (list $theirs $ours) | fromJson) "v" -}}
{{- if or (kindIs "map" $value) (kindIs "slice" $value) -}}
{{- if $value }}{{ toYaml $value }}{{ end -}}
{{- else if not (kindIs "invalid" $value) }}{{ print $value }}{{ end -}}
{{- end -}}

{{- /* One value over another, as JSON below "v": maps are merged, lists too, by the names of their items. Of (list below
above). */ -}}
{{- define "nereid.over" -}}
{{- $below := index . 0 -}}
{{- $above := index . 1 -}}
{{- $value := $above -}}
{{- if kindIs "invalid" $above -}}
{{- $value = $below -}}
{{- else if and (kindIs "map" $below) (kindIs "map" $above) -}}
{{- $value = deepCopy $below -}}
{{- range $key, $own := $above -}}
{{- $merged := include "nereid.over" (list (index $below $key) $own) | fromJson -}}
{{- $_ := set $value $key (index $merged "v") -}}
{{- end -}}
{{- else if and (kindIs "slice" $below) (kindIs "slice" $above) -}}
{{- $value = list -}}
{{- $named := dict -}}
{{- range $above }}{{ if hasKey . "name" }}{{ $_ := set $named .name . }}{{ end }}{{ end -}}
{{- range $below -}}
{{- $own := index $named (index . "name" | default "") -}}
{{- $merged := include "nereid.over" (list . $own) | fromJson -}}
{{- $value = append $value (index $merged "v") -}}
{{- $_ := unset $named (index . "name" | default "") -}}
{{- end -}}
{{- range $above }}{{ if or (not (hasKey . "name")) (hasKey $named .name) }}{{ $value = append $value . }}{{ end }}{{ end -}}
{{- end -}}
{{- dict "v" $value | toJson -}}
{{- end -}}

{{- /* Of the settings: a changed one is a ConfigMap of another name, so new pods start and old ones keep what they had. */ -}}
{{- define "nereid.hash" -}}
{{- include "nereid.slot" (list . (printf "%s.settings" .Values.mode) .Values.settings) | sha256sum | trunc 10 -}}
{{- end -}}

{{- /* A quantity of Kubernetes as a number of a unit. Of (list quantity unit). */ -}}
{{- define "nereid.quantity" -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $suffix := index . 0 | toString | regexFind "[A-Za-z]*$" -}}
{{- divf (mulf (index . 0 | toString | trimSuffix $suffix) (index $units $suffix)) (index $units (index . 1)) -}}
{{- end -}}
