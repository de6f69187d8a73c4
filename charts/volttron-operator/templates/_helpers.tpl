{{/* Names are fixed: what is cluster-scoped here exists once in a cluster, and so does the operator. */}}
{{- define "volttron.name" -}}
volttron-operator
{{- end }}

{{- define "volttron.selector" -}}
app.kubernetes.io/name: {{ include "volttron.name" . }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "volttron.labels" -}}
app.kubernetes.io/name: {{ include "volttron.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: volttron
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The user the controller is to the API server. */}}
{{- define "volttron.controllerUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "volttron.name" . }}
{{- end }}

{{/*
"true" where requester and approver are stamped, else nothing. What the API server serves is known only where there is one: `helm
template` knows of groups and versions alone, unless it is told by --api-versions.
*/}}
{{- define "volttron.stamping" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
{{- if eq (toString .Values.stamping.enabled) "auto" -}}
{{- if $served }}true{{ end -}}
{{- else if .Values.stamping.enabled -}}
{{- if and (not $served) (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy") -}}
{{- fail "stamping.enabled is true, and this API server does not serve MutatingAdmissionPolicy in admissionregistration.k8s.io/v1, which comes with Kubernetes 1.36: set it to auto" -}}
{{- end -}}
true
{{- end -}}
{{- end }}

{{/* The spec of a policy, which the controller knows by heart: (list . "approval-gate"). */}}
{{- define "volttron.policy" -}}
{{- $root := index . 0 -}}
{{- $root.Files.Get (printf "files/policies/%s.yaml" (index . 1)) | replace "CONTROLLER_USER" (include "volttron.controllerUser" $root) | trim }}
{{- end }}
