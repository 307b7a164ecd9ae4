// Writes an annotated LMDB with Caffe's own functions, as the SSD branch's convert_annoset does; a peer to measure.
//
// annoset ROOT LIST LABELMAP LMDB: LIST has lines `image annotation`, paths below ROOT. Images keep their bytes.
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <string>

#include "caffe/proto/caffe.pb.h"
#include "caffe/util/db.hpp"
#include "caffe/util/format.hpp"
#include "caffe/util/io.hpp"

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: annoset ROOT LIST LABELMAP LMDB\n";
    return 2;
  }
  const std::string root = std::string(argv[1]) + "/";
  caffe::LabelMap names;
  std::map<std::string, int> labels;
  if (!caffe::ReadProtoFromTextFile(argv[3], &names) || !caffe::MapNameToLabel(names, true, &labels)) {
    std::cerr << "annoset: cannot use " << argv[3] << "\n";
    return 1;
  }
  std::unique_ptr<caffe::db::DB> db(caffe::db::GetDB("lmdb"));
  db->Open(argv[4], caffe::db::NEW);
  std::unique_ptr<caffe::db::Transaction> transaction(db->NewTransaction());
  std::ifstream list(argv[2]);
  std::string image, annotation, value;
  for (int number = 0; list >> image >> annotation; ++number) {
    caffe::AnnotatedDatum datum;
    if (!caffe::ReadRichImageToAnnotatedDatum(root + image, root + annotation, 0, 0, 0, 0, true, "jpg",
                                              caffe::AnnotatedDatum_AnnotationType_BBOX, "xml", labels, &datum)) {
      std::cerr << "annoset: cannot read " << image << "\n";
      return 1;
    }
    datum.set_type(caffe::AnnotatedDatum_AnnotationType_BBOX);
    datum.SerializeToString(&value);
    transaction->Put(caffe::format_int(number, 8) + "_" + image, value);
    if (number % 1000 == 999) {
      transaction->Commit();
      transaction.reset(db->NewTransaction());
    }
  }
  transaction->Commit();
  return 0;
}
