// Trees with one branch of each kind that ROOT writes, for tests: see README.md.
#include <ROOT/RField.hxx>
#include <ROOT/RNTupleModel.hxx>
#include <ROOT/RNTupleWriter.hxx>
#include <ROOT/RVec.hxx>
#include <TClonesArray.h>
#include <TFile.h>
#include <TLorentzVector.h>
#include <TTree.h>

#include <array>
#include <bitset>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

enum Color { red, green = 5 };
struct Pod { float x; int n; double y; ClassDefNV(Pod, 1) };
struct Hit { float e; short id; std::vector<float> w; ClassDefNV(Hit, 1) };
struct Evt { Float16_t F16; Double32_t F64; Color c; bool b; float a[3]; std::vector<int> v; Pod p; ClassDefNV(Evt, 1) };
#ifdef __ROOTCLING__
#pragma link C++ class Pod+;
#pragma link C++ class Hit+;
#pragma link C++ class Evt+;
#pragma link C++ class std::vector<Hit>+;
#pragma link C++ class std::vector<Pod>+;
#pragma link C++ class std::map<std::string,float>+;
#pragma link C++ class std::map<int,float>+;
#pragma link C++ class std::pair<int,float>+;
#pragma link C++ class std::set<int>+;
#pragma link C++ class std::vector<TLorentzVector>+;
#endif

using ULL = ULong64_t;
struct Kind { std::string name; std::function<void(TTree&)> book; std::function<void(int)> fill; };

#define ONE(NAME, TYPE, LEAF, VALUE) {auto* x = new TYPE(); all.push_back({NAME, [=](TTree& t) { t.Branch(NAME, x, NAME LEAF); }, [=](int i) { *x = VALUE; }});}
#define OBJ(NAME, TYPE, SPLIT, BODY) {auto* x = new TYPE(); all.push_back({NAME, [=](TTree& t) { t.Branch(NAME, x, 32000, SPLIT); }, [=](int i) { auto& o = *x; BODY; }});}

void make_trees(const char* path, int entries) {
  std::vector<Kind> all;
  ONE("k_bool", Bool_t, "/O", i % 2) ONE("k_char", Char_t, "/B", 'a' - 20 * i) ONE("k_uchar", UChar_t, "/b", 200 + i)
  ONE("k_short", Short_t, "/S", -i) ONE("k_ushort", UShort_t, "/s", 60000 + i) ONE("k_int", Int_t, "/I", -i) ONE("k_uint", UInt_t, "/i", 4000000000u + i)
  ONE("k_int64", Long64_t, "/L", -(1LL << 60) - i) ONE("k_uint64", ULL, "/l", (1ULL << 63) + (1ULL << 53) + 1 + i) ONE("k_long", Long_t, "/G", -(1L << 60) - i)
  ONE("k_float", float, "/F", i / 8.f) ONE("k_double", double, "/D", i / 3.) ONE("k_float16", Float16_t, "/f", i / 4.f) ONE("k_float16_range", Float16_t, "/f[0,400,16]", 7 * i)
  ONE("k_double32", Double32_t, "/d", i / 4.) ONE("k_double32_range", Double32_t, "/d[0,400,20]", i / 2.) ONE("k_enum", int, "/I", i % 2 ? red : green)
  auto* c = new char[400]; auto* e = new char[4](); all.push_back({"k_c_string", [=](TTree& t) { t.Branch("k_c_string", c, "k_c_string/C"); }, [=](int i) {
    int n = i % 3 == 1 ? 0 : i == 5 ? 300 : 2 + i; for (int j = 0; j < n; j++) c[j] = 'a' + (i + j) % 26; c[n] = 0; }});
  all.push_back({"k_c_empty", [=](TTree& t) { t.Branch("k_c_empty", e, "k_c_empty/C"); }, [](int) {}});
  OBJ("k_string", std::string, 99, o = i % 4 ? "s" + std::to_string(i) : "") OBJ("k_tstring", TString, 99, o = i % 3 ? "ts" : "")
  auto* f = new float[3]; all.push_back({"k_fixed", [=](TTree& t) { t.Branch("k_fixed", f, "k_fixed[3]/F"); }, [=](int i) { for (int j = 0; j < 3; j++) f[j] = i + j; }});
  auto* g = new double[6]; all.push_back({"k_fixed2", [=](TTree& t) { t.Branch("k_fixed2", g, "k_fixed2[2][3]/D"); }, [=](int i) { for (int j = 0; j < 6; j++) g[j] = i + j; }});
  auto* n = new int; auto* v = new float[9]; all.push_back({"k_variable", [=](TTree& t) { t.Branch("count", n, "count/I"); t.Branch("k_variable", v, "k_variable[count]/F"); }, [=](int i) { *n = i % 4; for (int j = 0; j < 9; j++) v[j] = i + j; }});
  auto* m = new UChar_t; auto* w = new ULL[9]; all.push_back({"k_variable_u", [=](TTree& t) { t.Branch("small", m, "small/b"); t.Branch("k_variable_u", w, "k_variable_u[small]/l"); }, [=](int i) { *m = i % 3; for (int j = 0; j < 9; j++) w[j] = (1ULL << 63) + i + j; }});
  auto* q = new int; auto* u = new float[27]; all.push_back({"k_variable3", [=](TTree& t) { t.Branch("rows", q, "rows/I"); t.Branch("k_variable3", u, "k_variable3[rows][3]/F"); }, [=](int i) { *q = i % 4; for (int j = 0; j < 27; j++) u[j] = i + j; }});
  struct Leaves { float P; float ETA; int n; }; auto* l = new Leaves; all.push_back({"k_leaves", [=](TTree& t) { t.Branch("k_leaves", l, "P/F:ETA/F:n/I"); }, [=](int i) { *l = {5000.f + i, 2 + i * .25f, i}; }});
  OBJ("k_v_float", std::vector<float>, 99, o.assign(i % 3, i)) OBJ("k_v_bool", std::vector<bool>, 99, o.assign(i % 5, i % 2)) OBJ("k_v_char", std::vector<char>, 99, o.assign(i % 3, -i))
  OBJ("k_v_uint64", std::vector<ULL>, 99, o.assign(i % 2, (1ULL << 63) + i)) OBJ("k_v_double32", std::vector<Double32_t>, 99, o.assign(i % 3, i / 2.)) OBJ("k_rvec", ROOT::RVec<float>, 99, o.assign(i % 3, i))
  OBJ("k_v_string", std::vector<std::string>, 99, o.assign(i % 3, "v" + std::to_string(i))) OBJ("k_v_v", std::vector<std::vector<float>>, 99, o.assign(i % 3, std::vector<float>(i % 2, i)))
  { using A = std::array<float, 3>; OBJ("k_array", A, 99, (o = {1.f * i, 2.f * i, 3.f * i})) } { using P = std::pair<int, float>; OBJ("k_pair", P, 99, (o = {i, i * .5f})) }
  { using M = std::map<std::string, float>; OBJ("k_map", M, 99, o.clear(); o["a"] = i) } { using M = std::map<int, float>; OBJ("k_map_int", M, 99, o.clear(); o[i] = i) } OBJ("k_set", std::set<int>, 99, o.clear(); for (int j = 0; j < i % 4; j++) o.insert(i + j))
  OBJ("k_struct", Pod, 99, (o = {1.f * i, i, 2. * i})) OBJ("k_struct_whole", Pod, 0, (o = {1.f * i, i, 2. * i}))
#define EVT o.F16 = i / 4.f; o.F64 = i / 8.; o.c = i % 2 ? red : green; o.b = i % 2; for (int j = 0; j < 3; j++) o.a[j] = i + j; o.v.assign(i % 3, i); o.p = {1.f * i, i, 2. * i}
  OBJ("k_event", Evt, 99, EVT) OBJ("k_event_whole", Evt, 0, EVT) OBJ("k_event_dot.", Evt, 99, EVT)
  OBJ("k_v_struct", std::vector<Pod>, 99, o.assign(i % 3, Pod{1.f * i, i, 2. * i})) OBJ("k_v_struct_whole", std::vector<Pod>, 0, o.assign(i % 3, Pod{1.f * i, i, 2. * i})) OBJ("k_v_hit", std::vector<Hit>, 99, o.clear(); for (int j = 0; j < i % 3; j++) o.push_back(Hit{1.f * i, (short)j, std::vector<float>(j, i)}))
  OBJ("k_lorentz", TLorentzVector, 99, o.SetPxPyPzE(i, 2 * i, 3 * i, 10 * i + 1)) OBJ("k_lorentz_whole", TLorentzVector, 0, o.SetPxPyPzE(i, 2 * i, 3 * i, 10 * i + 1)) OBJ("k_v_lorentz", std::vector<TLorentzVector>, 99, o.assign(i % 3, TLorentzVector(i, i, i, 2 * i)))
  auto* a = new TClonesArray("TVector3"); all.push_back({"k_clones", [=](TTree& t) { t.Branch("k_clones", a); }, [=](int i) { a->Clear(); for (int j = 0; j < i % 3; j++) new ((*a)[j]) TVector3(i, j, 1); }});

  TFile file(path, "RECREATE", "", 0);
  auto write = [&](const std::string& name, std::vector<Kind> kinds) {
    TTree tree(name.c_str(), ""); double p, eta; tree.Branch("K_P", &p); tree.Branch("K_ETA", &eta);
    for (auto& k : kinds) k.book(tree);
    for (int i = 0; i < entries; i++) { p = 5000 + 100 * i; eta = 2 + .25 * i; for (auto& k : kinds) k.fill(i); tree.Fill(); }
    tree.Write();
  };
  for (auto& k : all) write(k.name, {k});
  write("all", all);
}

using namespace ROOT;
struct Field { std::string name; std::function<void(RNTupleModel&)> book; std::function<void(const REntry&, int)> fill; };
#define FIELD(NAME, TYPE, BODY) all.push_back({NAME, [](RNTupleModel& m) { m.MakeField<TYPE>(NAME); }, [](const REntry& e, int i) { auto& o = *e.GetPtr<TYPE>(NAME); BODY; }});
#define PACKED(NAME, TYPE, HOW, VALUE) all.push_back({NAME, [](RNTupleModel& m) { auto f = std::make_unique<RField<TYPE>>(NAME); f->HOW; m.AddField(std::move(f)); }, [](const REntry& e, int i) { *e.GetPtr<TYPE>(NAME) = VALUE; }});
#define PROJECTED(NAME, TYPE, SOURCE) all.push_back({NAME, [](RNTupleModel& m) { m.MakeField<std::vector<float>>(SOURCE); m.AddProjectedField(RFieldBase::Create(NAME, TYPE).Unwrap(), [](const std::string&) { return std::string(SOURCE); }); }, [](const REntry& e, int i) { e.GetPtr<std::vector<float>>(SOURCE)->assign(i % 3, i); }});

void make_rntuples(const char* path, int entries) {
  std::vector<Field> all;
  FIELD("k_bool", bool, o = i % 2) FIELD("k_char", char, o = 'a' - 20 * i) FIELD("k_int8", std::int8_t, o = -i) FIELD("k_uint8", std::uint8_t, o = 200 + i) FIELD("k_byte", std::byte, o = std::byte(250 + i % 5))
  FIELD("k_int16", std::int16_t, o = -i) FIELD("k_uint16", std::uint16_t, o = 60000 + i) FIELD("k_int32", std::int32_t, o = -i) FIELD("k_uint32", std::uint32_t, o = 4000000000u + i) FIELD("k_int64", std::int64_t, o = -(1LL << 60) - i) FIELD("k_uint64", std::uint64_t, o = (1ULL << 63) + (1ULL << 53) + 1 + i)
  FIELD("k_float", float, o = i / 8.f) FIELD("k_double", double, o = i / 3.) FIELD("k_double32", Double32_t, o = i / 4.)
  PACKED("k_half", float, SetHalfPrecision(), i / 4.f) PACKED("k_truncated", float, SetTruncated(20), i / 2.f) PACKED("k_quantized", float, SetQuantized(0, 400, 16), 7 * i) PACKED("k_quantized_d", double, SetQuantized(0, 400, 20), 7 * i)
  FIELD("k_string", std::string, o = i % 3 ? "s" + std::to_string(i) : "")
  { using A = std::array<float, 3>; FIELD("k_array", A, (o = {1.f * i, 2.f * i, 3.f * i})) } { using A = std::array<float, 1>; FIELD("k_array1", A, (o = {1.f * i})) } { using A = std::array<std::array<float, 2>, 3>; FIELD("k_array2", A, for (auto& x : o) (x = {1.f * i, 2.f * i})) } { using A = std::array<std::string, 2>; FIELD("k_array_string", A, (o = {"x" + std::to_string(i), ""})) }
  FIELD("k_v_float", std::vector<float>, o.assign(i % 3, i)) FIELD("k_v_bool", std::vector<bool>, o.assign(i % 5, i % 2)) FIELD("k_v_char", std::vector<char>, o.assign(i % 3, -i)) FIELD("k_v_uint64", std::vector<std::uint64_t>, o.assign(i % 2, (1ULL << 63) + i)) FIELD("k_v_string", std::vector<std::string>, o.assign(i % 3, "v" + std::to_string(i)))
  FIELD("k_v_v", std::vector<std::vector<float>>, o.assign(i % 3, std::vector<float>(i % 2, i))) { using A = std::vector<std::array<float, 3>>; FIELD("k_v_array", A, o.assign(i % 3, {1.f * i, 2, 3})) }
  FIELD("k_rvec", RVec<float>, o.assign(i % 3, i)) FIELD("k_rvec_bool", RVec<bool>, o.assign(i % 3, i % 2)) FIELD("k_rvec_int", RVec<short>, o.assign(i % 4, -i)) FIELD("k_rvec_rvec", RVec<RVec<float>>, o.assign(i % 3, RVec<float>(i % 2, i)))
  { using P = std::pair<int, float>; FIELD("k_pair", P, (o = {i, i * .5f})) } { using T = std::tuple<int, float, double>; FIELD("k_tuple", T, (o = {i, i * .5f, i * .25})) } { using V = std::variant<int, float>; FIELD("k_variant", V, if (i % 2) o = i; else o = i * .5f) } FIELD("k_bitset", std::bitset<17>, o = std::bitset<17>(i))
  FIELD("k_optional", std::optional<float>, if (i % 2) o = i; else o.reset()) FIELD("k_optional_int", std::optional<std::int32_t>, if (i % 2) o = i; else o.reset()) FIELD("k_optional_string", std::optional<std::string>, if (i % 2) o = "o"; else o.reset()) FIELD("k_v_optional", std::vector<std::optional<float>>, o.clear(); for (int j = 0; j < i % 3; j++) if (j) o.push_back(1.f * i); else o.push_back(std::nullopt))
  FIELD("k_pointer", std::unique_ptr<float>, if (i % 2) o = std::make_unique<float>(i); else o.reset()) FIELD("k_atomic", std::atomic<int>, o = i) FIELD("k_set", std::set<int>, o.clear(); for (int j = 0; j < i % 4; j++) o.insert(i + j))
  { using M = std::map<std::string, float>; FIELD("k_map", M, o.clear(); o["a"] = i) } { using M = std::map<int, float>; FIELD("k_map_int", M, o.clear(); o[i] = i) }
  FIELD("k_enum", Color, o = i % 2 ? red : green) FIELD("k_struct", Pod, (o = {1.f * i, i, 2. * i})) FIELD("k_v_struct", std::vector<Pod>, o.assign(i % 3, Pod{1.f * i, i, 2. * i})) FIELD("k_v_hit", std::vector<Hit>, o.clear(); for (int j = 0; j < i % 3; j++) o.push_back(Hit{1.f * i, (short)j, std::vector<float>(j, i)}))
  PROJECTED("k_cardinality", "ROOT::RNTupleCardinality<std::uint32_t>", "k_source32") PROJECTED("k_cardinality64", "ROOT::RNTupleCardinality<std::uint64_t>", "k_source64")
  all.push_back({"k_alias", [](RNTupleModel& m) { m.MakeField<float>("k_source"); m.AddProjectedField(RFieldBase::Create("k_alias", "float").Unwrap(), [](const std::string&) { return std::string("k_source"); }); }, [](const REntry& e, int i) { *e.GetPtr<float>("k_source") = i; }});

  TFile file(path, "RECREATE", "", 0);
  auto write = [&](const std::string& name, std::vector<Field> fields) {
    auto model = RNTupleModel::Create(); auto p = model->MakeField<double>("K_P"); auto eta = model->MakeField<double>("K_ETA");
    for (auto& f : fields) f.book(*model);
    RNTupleWriteOptions options; options.SetCompression(0);
    auto writer = RNTupleWriter::Append(std::move(model), name, file, options); auto& entry = writer->GetModel().GetDefaultEntry();
    for (int i = 0; i < entries; i++) { *p = 5000 + 100 * i; *eta = 2 + .25 * i; for (auto& f : fields) f.fill(entry, i); writer->Fill(); if (i == entries / 2) writer->CommitCluster(); }
  };
  for (auto& f : all) write(f.name, {f});
  write("all", all);
}
