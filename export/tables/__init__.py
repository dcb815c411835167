"""Table models: estimators of scikit-learn and XGBoost as one ONNX graph, verified against the estimator itself."""
