// Runs the C++ library's processing (rendered with the name `conformance`) over the conformance files:
// conformance VOCAB UNICODE FOLDER
#include "conformance/audio.hpp"
#include "conformance/image.hpp"
#include "conformance/postprocess.hpp"
#include "conformance/series.hpp"
#include "conformance/wordpiece.hpp"

#include <cmath>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

using namespace conformance;
using Fields = std::map<std::string, std::string>;

namespace {

std::map<std::string, std::pair<int, int>> counts; // kind -> cases, differences
std::string content;                               // of cases.bin

std::string file(const std::string &path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

void note(const std::string &kind, const std::string &name, bool same) {
    ++counts[kind].first;
    if (same) return;
    ++counts[kind].second;
    std::cout << kind << ": " << name << "\n";
}

std::vector<std::string> split(const std::string &text, char by) {
    std::vector<std::string> parts;
    std::stringstream stream(text);
    for (std::string part; std::getline(stream, part, by);) parts.push_back(part);
    return parts;
}

struct Place {
    std::vector<std::size_t> shape;
    std::size_t offset, count;
};

Place place(const std::string &text) {
    const auto parts = split(text.substr(1), ':');
    Place found{{}, std::stoul(parts[1]), 1};
    for (const auto &length : split(parts[2], 'x')) found.shape.push_back(std::stoul(length));
    for (const auto length : found.shape) found.count *= length;
    return found;
}

template <class T> std::vector<T> array(const std::string &text) {
    const Place found = place(text);
    std::vector<T> values(found.count);
    std::memcpy(values.data(), content.data() + found.offset, found.count * sizeof(T));
    return values;
}

template <class T> std::vector<T> list(const std::string &text) {
    std::vector<T> values;
    for (const auto &part : split(text, ',')) values.push_back(static_cast<T>(std::stod(part)));
    return values;
}

std::int32_t bits(float value) {
    std::int32_t found;
    std::memcpy(&found, &value, sizeof found);
    return found;
}

bool near(const std::vector<float> &found, const std::vector<float> &wanted, const std::string &tolerance) {
    if (found.size() != wanted.size()) return false;
    for (std::size_t i = 0; i < found.size(); ++i) {
        if (tolerance == "ulp") {
            if (found[i] != wanted[i] && std::abs(bits(found[i]) - bits(wanted[i])) > 1) return false;
        } else if (!(std::fabs(found[i] - wanted[i]) <= std::stod(tolerance) * std::fmax(1.0, std::fabs(wanted[i])))) {
            return false;
        }
    }
    return true;
}

template <class T> T one_of(const std::string &word, std::initializer_list<const char *> words) {
    int i = 0;
    for (const char *known : words) {
        if (word == known) return static_cast<T>(i);
        ++i;
    }
    throw std::runtime_error(word);
}

bool image(const Fields &f) {
    const auto shape = place(f.at("pixels")).shape;
    const auto fill = list<std::uint8_t>(f.at("fill"));
    const ImageOptions options{
        std::stoi(f.at("width")), std::stoi(f.at("height")), one_of<Channels>(f.at("channels"), {"rgb", "bgr", "gray", "gray3"}),
        one_of<Layout>(f.at("layout"), {"nchw", "nhwc"}), one_of<Resize>(f.at("resize"), {"stretch", "cover", "fit"}),
        std::stoi(f.at("shortest_edge")), one_of<Interpolation>(f.at("interpolation"), {"nearest", "bilinear", "bicubic", "lanczos"}),
        one_of<CropRounding>(f.at("crop_rounding"), {"even", "down"}), {fill[0], fill[1], fill[2]},
        static_cast<float>(std::stod(f.at("divisor"))), list<float>(f.at("mean")), list<float>(f.at("std"))};
    const Pixels pixels{static_cast<int>(shape[1]), static_cast<int>(shape[0]), array<std::uint8_t>(f.at("pixels"))};
    return near(image_tensor(pixels, options), array<float>(f.at("expected")), f.at("tolerance"));
}

bool audio(const Fields &f) {
    const auto number = [&f](const char *name) { return std::stod(f.at(name)); };
    const auto size = [&f](const char *name) { return std::stoul(f.at(name)); };
    std::optional<double> range;
    if (!f.at("range").empty()) range = number("range");
    const AudioOptions options{
        size("samples"), size("frame"), size("hop"), size("fft"), f.at("centered") == "true",
        one_of<Padding>(f.at("padding"), {"reflect", "zero"}), number("power"), size("mels"),
        one_of<Log>(f.at("log"), {"log", "log10", "db"}), number("floor"), f.at("drop_last") == "true", range, number("mean"),
        number("std"), one_of<MelLayout>(f.at("layout"), {"mel_time", "time_mel"})};
    auto tables = array<double>(f.at("tables_window"));
    const auto filters = array<double>(f.at("tables_filters"));
    tables.insert(tables.end(), filters.begin(), filters.end());
    return near(audio_tensor(array<float>(f.at("sound")), options, tables), array<float>(f.at("expected")), f.at("tolerance"));
}

bool series(const Fields &f) {
    const SeriesOptions options{std::stoul(f.at("channels")), std::stoul(f.at("steps")), one_of<Keep>(f.at("keep"), {"last", "first"}),
                                std::stod(f.at("pad")), one_of<Scaling>(f.at("scaling"), {"none", "standard", "instance", "minmax"}),
                                list<double>(f.at("mean")), list<double>(f.at("std")), list<double>(f.at("low")),
                                list<double>(f.at("high")), std::stod(f.at("epsilon"))};
    return near(series_tensor(array<float>(f.at("series")), options), array<float>(f.at("expected")), "0");
}

bool classes(const Fields &f) {
    const auto found = class_scores(array<float>(f.at("values")), split(f.at("labels"), ','),
                                    one_of<Activation>(f.at("activation"), {"none", "softmax", "sigmoid"}),
                                    static_cast<float>(std::stod(f.at("threshold"))));
    return near(found.scores, array<float>(f.at("expected")), f.at("tolerance")) && found.label.value_or("") == f.at("label") &&
           found.above == split(f.at("above"), ',');
}

bool embedding(const Fields &f) {
    std::vector<std::int64_t> mask;
    if (f.count("mask")) mask = array<std::int64_t>(f.at("mask"));
    const auto found = embedding_of(array<float>(f.at("values")), place(f.at("values")).shape.back(),
                                    one_of<Pooling>(f.at("pooling"), {"none", "mean", "max", "cls"}), f.at("normalize") == "true",
                                    mask.empty() ? nullptr : &mask);
    return near(found, array<float>(f.at("expected")), f.at("tolerance"));
}

} // namespace

int main(int, char **arguments) {
    const std::string folder = arguments[3];
    const WordPiece tokenizer(file(arguments[1]), file(arguments[2]),
                              {true, true, true, true, "##", 100, 100, 101, 102, 0,
                               {{"[PAD]", 0}, {"[UNK]", 100}, {"[CLS]", 101}, {"[SEP]", 102}, {"[MASK]", 103}}, 128});
    for (const auto &line : split(file(folder + "/text.tsv"), '\n')) {
        const auto tab = line.find('\t');
        std::string bytes, ids;
        for (std::size_t i = 0; i < tab; i += 2) bytes.push_back(static_cast<char>(std::stoi(line.substr(i, 2), nullptr, 16)));
        for (const auto id : tokenizer.tokens(bytes)) ids += (ids.empty() ? "" : " ") + std::to_string(id);
        note("text", line.substr(0, 60), ids == line.substr(tab + 1));
    }
    content = file(folder + "/cases.bin");
    const std::map<std::string, bool (*)(const Fields &)> kinds{
        {"image", image}, {"audio", audio}, {"series", series}, {"classes", classes}, {"embedding", embedding}};
    for (const auto &line : split(file(folder + "/cases.tsv"), '\n')) {
        Fields fields;
        for (const auto &pair : split(line, '\t')) fields[pair.substr(0, pair.find('='))] = pair.substr(pair.find('=') + 1);
        note(fields.at("kind"), fields.at("case"), kinds.at(fields.at("kind"))(fields));
    }
    bool all = true;
    const char *separator = "";
    for (const auto &[kind, count] : counts) {
        std::cout << separator << kind << ": " << count.first << " cases, " << count.second << " differences";
        separator = "; ";
        all = all && count.second == 0;
    }
    std::cout << "\n";
    return all ? 0 : 1;
}
