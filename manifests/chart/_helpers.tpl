{{- /* What objects are called: nereid, with the release's name in front, unless that has it already. */ -}}
{{- define "nereid.fullname" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- if gt (len $name) 50 -}}{{- fail (printf "the release's name: got %s, expected 43 characters at most" .Release.Name) -}}{{- end -}}
{{- $name -}}
{{- end -}}

{{- /* Which components are on, as JSON: those of the values, and what they need. */ -}}
{{- define "nereid.on" -}}
{{- $values := .Values -}}
{{- $on := dict "service" (eq .Values.mode "plain") -}}
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

{{- /* An image with its registry, its tag or its digest. */ -}}
{{- define "nereid.image" -}}
{{- .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end -}}
{{- end -}}

{{- /* What the manifests say in a place, with what the user says over it, as YAML, a single
value bare; nothing where that is empty. Of (list root place value). */ -}}
{{- define "nereid.slot" -}}
{{- $theirs := index (include (printf "nereid.%s" (index . 1)) (index . 0) | fromYaml) "v" -}}
{{- $value := index (include "nereid.over" (list $theirs (index . 2)) | fromJson) "v" -}}
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

{{- /* Of the settings: a changed one is a ConfigMap of another name, so pods start anew and old ones keep what they had. */ -}}
{{- define "nereid.hash" -}}
{{- include "nereid.slot" (list . (printf "%s.settings" .Values.mode) .Values.settings) | sha256sum | trunc 10 -}}
{{- end -}}
