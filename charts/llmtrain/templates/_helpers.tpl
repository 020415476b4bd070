{{/* Names are cut at 63 letters, the length of a label. */}}
{{- define "llmtrain.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "llmtrain.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "llmtrain.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "llmtrain.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Of objects without a namespace: two releases of one name may serve different namespaces. */}}
{{- define "llmtrain.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "llmtrain.fullname" .) -}}
{{- end }}

{{- define "llmtrain.selectorLabels" -}}
app.kubernetes.io/name: {{ include "llmtrain.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "llmtrain.labels" -}}
{{ include "llmtrain.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "llmtrain.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "llmtrain.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: serviceAccount.create is false: name the account that exists" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "llmtrain.image" -}}
{{- with .Values.image -}}
{{- if .reference -}}
{{- .reference -}}
{{- else -}}
{{- $repository := required "image.repository: not set: name the repository to which you pushed the operator image" .repository -}}
{{- if .digest -}}
{{- printf "%s@%s" $repository .digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "llmtrain.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "llmtrain.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What the operator may do where there are runs; each verb is used. No Secret is ever read. */}}
{{- define "llmtrain.rules" -}}
- apiGroups: [llmtrain.dev]
  resources: [llmtrainruns]
  verbs: [list, watch, create, delete]
- apiGroups: [llmtrain.dev]
  resources: [llmtrainschedules]
  verbs: [list, watch]
- apiGroups: [llmtrain.dev]
  resources: [llmtrainruns/status, llmtrainschedules/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch]
{{- end }}
