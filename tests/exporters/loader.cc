// Runs requests against a SavedModel with the function that TensorFlow Serving loads models by.
//
//     loader MODEL REQUESTS
//
// Every file NUMBER.SIGNATURE.request in the folder REQUESTS contains a serialised TensorProto, the
// only input of that signature. Each output is written to NUMBER.OUTPUT.output, as a TensorProto
// too; where the run fails, its message to NUMBER.error, and the next request is served.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"

namespace fs = std::filesystem;

namespace {

tensorflow::Tensor Read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  tensorflow::TensorProto proto;
  tensorflow::Tensor tensor;
  if (!proto.ParseFromIstream(&file) || !tensor.FromProto(proto)) {
    std::cerr << path << " contains no tensor\n";
    std::exit(1);
  }
  return tensor;
}

void Write(const tensorflow::Tensor& tensor, const fs::path& path) {
  tensorflow::TensorProto proto;
  tensor.AsProtoField(&proto);
  std::ofstream file(path, std::ios::binary);
  proto.SerializeToOstream(&file);
}

void Serve(tensorflow::SavedModelBundle& bundle, const fs::path& request) {
  const std::string name = request.filename().string();
  const std::string number = name.substr(0, name.find('.'));
  const std::string signature_name =
      name.substr(number.size() + 1, name.rfind('.') - number.size() - 1);
  const auto& signature = bundle.GetSignatures().at(signature_name);
  std::vector<std::string> names, tensors;
  for (const auto& [output, info] : signature.outputs()) {
    names.push_back(output);
    tensors.push_back(info.name());
  }
  std::vector<tensorflow::Tensor> outputs;
  const auto status = bundle.GetSession()->Run(
      {{signature.inputs().begin()->second.name(), Read(request)}}, tensors, {}, &outputs);
  if (!status.ok()) {
    std::ofstream(request.parent_path() / (number + ".error")) << status.message();
    return;
  }
  for (size_t i = 0; i < names.size(); ++i) {
    Write(outputs[i], request.parent_path() / (number + "." + names[i] + ".output"));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: loader MODEL REQUESTS\n";
    return 2;
  }
  tensorflow::SavedModelBundle bundle;
  const auto status = tensorflow::LoadSavedModel(tensorflow::SessionOptions(),
                                                 tensorflow::RunOptions(), argv[1], {"serve"},
                                                 &bundle);
  if (!status.ok()) {
    std::cerr << status.message() << "\n";
    return 1;
  }
  std::vector<fs::path> requests;
  for (const auto& entry : fs::directory_iterator(argv[2])) {
    if (entry.path().extension() == ".request") requests.push_back(entry.path());
  }
  std::sort(requests.begin(), requests.end());
  for (const auto& request : requests) Serve(bundle, request);
}
