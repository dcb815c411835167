{{- /* Checks beyond the schema: values that contradict each other. */ -}}
{{- $mode := .Values.mode -}}
{{- $on := include "nereid.on" . | fromJson -}}
{{- $min := include "nereid.slot" (list . (printf "%s.replicas.min" $mode) .Values.replicas.min) | int -}}
{{- $max := include "nereid.slot" (list . (printf "%s.replicas.max" $mode) .Values.replicas.max) | int -}}
{{- if gt $min $max }}{{ fail (printf "replicas: got min %d over max %d, expected min up to max" $min $max) }}{{ end -}}
{{- if and $on.cpuTriton $on.gpu }}{{ fail "cpuTriton.enabled: got true with gpu.enabled, expected one of them: it knows no GPU" }}{{ end -}}
{{- if and $on.production (not $on.noNamespace) -}}
{{- $pods := add $max (ternary 0 1 (hasKey $on "gpu")) -}}
{{- $quota := .Values.production.quota -}}
{{- $hard := include "nereid.slot" (list . (printf "%s.production.quota.hard" $mode) $quota.hard) | fromYaml -}}
{{- $short := gt $pods (get $hard "pods" | default 9999 | int64) | ternary (list (printf "pods %d" $pods)) (list) -}}
{{- range $kind := list "requests" "limits" -}}
{{- range $resource, $unit := dict "cpu" "" "memory" "Gi" -}}
{{- $pod := 0.0 -}}
{{- range $name := list "triton" "synchroniser" "transformer" -}}
{{- $own := include "nereid.slot" (list $ (printf "%s.%s.resources" $mode $name) (get $.Values $name).resources) -}}
{{- $pod = addf $pod (include "nereid.quantity" (list (fromYaml $own | dig $kind $resource "0") $unit)) -}}
{{- end -}}
{{- $key := printf "%s.%s" $kind $resource -}}
{{- if gt (mulf $pods $pod) (include "nereid.quantity" (list (get $hard $key | default "9999T") $unit) | float64) -}}
{{- $short = append $short (printf "%s %v%s (%d x %v)" $key (mulf $pods $pod | ceil) $unit $pods $pod) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $short }}{{ fail (printf "production.quota.hard: got less than pods need, expected %s" (join ", " .)) }}{{ end -}}
{{- end -}}
