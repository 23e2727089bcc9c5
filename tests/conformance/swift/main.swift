// Runs the Swift library's processing, compiled together with this file, over the conformance files:
// conformance VOCAB UNICODE FOLDER
import Foundation

typealias Fields = [String: String]

struct Unknown: Error {
    let word: String
}

func file(_ path: String) throws -> Data {
    try Data(contentsOf: URL(fileURLWithPath: path))
}

/// The lines of a UTF-8 file; by bytes, as Swift's own lines also end at other characters than a newline.
func lines(_ path: String) throws -> [String] {
    try file(path).split(separator: 10).map { String(decoding: $0, as: UTF8.self) }
}

func split(_ text: String, _ by: Character) -> [String] {
    text.split(separator: by).map(String.init)
}

/// A value of a case; every field is there but `mask`.
func value(_ fields: Fields, _ key: String) throws -> String {
    guard let found = fields[key] else { throw Unknown(word: key) }
    return found
}

func number(_ fields: Fields, _ key: String) throws -> Double {
    let word = try value(fields, key)
    guard let found = Double(word) else { throw Unknown(word: word) }
    return found
}

func size(_ fields: Fields, _ key: String) throws -> Int {
    let word = try value(fields, key)
    guard let found = Int(word) else { throw Unknown(word: word) }
    return found
}

func numbers(_ fields: Fields, _ key: String) throws -> [Double] {
    try split(try value(fields, key), ",").map { word in
        guard let found = Double(word) else { throw Unknown(word: word) }
        return found
    }
}

func choice<T>(_ fields: Fields, _ key: String, _ known: [String: T]) throws -> T {
    let word = try value(fields, key)
    guard let found = known[word] else { throw Unknown(word: word) }
    return found
}

/// Arrays of cases.bin, where `@TYPE:OFFSET:SHAPE` says.
struct Arrays {
    let content: [UInt8]

    func shape(_ place: String) -> [Int] {
        split(split(place, ":")[2], "x").compactMap { Int($0) }
    }

    func bytes(_ place: String) -> [UInt8] {
        Array(raw(place, 1))
    }

    func floats(_ place: String) -> [Float] {
        words(place, 4).map { Float(bitPattern: UInt32($0)) }
    }

    func doubles(_ place: String) -> [Double] {
        words(place, 8).map(Double.init(bitPattern:))
    }

    func ints(_ place: String) -> [Int] {
        words(place, 8).map { Int(Int64(bitPattern: $0)) }
    }

    private func raw(_ place: String, _ width: Int) -> ArraySlice<UInt8> {
        let start = Int(split(place, ":")[1]) ?? 0
        return content[start..<start + width * shape(place).reduce(1, *)]
    }

    private func words(_ place: String, _ width: Int) -> [UInt64] {
        let found = raw(place, width)
        return stride(from: found.startIndex, to: found.endIndex, by: width).map { start in
            (0..<width).reduce(UInt64(0)) { $0 | UInt64(found[start + $1]) << UInt64(8 * $1) }
        }
    }
}

/// The order of floats as integers, so that neighbours differ by 1.
func rank(_ x: Float) -> Int {
    let bits = Int(Int32(bitPattern: x.bitPattern))
    return bits >= 0 ? bits : -(bits & 0x7FFF_FFFF)
}

func near(_ found: [Float], _ wanted: [Float], _ tolerance: String) -> Bool {
    if found.count != wanted.count { return false }
    let allowed = Float(tolerance) ?? 0
    return zip(found, wanted).allSatisfy { found, wanted in
        if tolerance == "ulp" { return abs(rank(found) - rank(wanted)) <= 1 }
        return abs(found - wanted) <= allowed * max(1, abs(wanted))
    }
}

func image(_ f: Fields, _ arrays: Arrays) throws -> Bool {
    let shape = arrays.shape(try value(f, "pixels"))
    let options = ImageOptions(
        width: try size(f, "width"), height: try size(f, "height"),
        channels: try choice(f, "channels", ["rgb": .rgb, "bgr": .bgr, "gray": .gray, "gray3": .gray3]),
        layout: try choice(f, "layout", ["nchw": .nchw, "nhwc": .nhwc]),
        resize: try choice(f, "resize", ["stretch": .stretch, "cover": .cover, "fit": .fit]),
        shortestEdge: try size(f, "shortest_edge"),
        interpolation: try choice(
            f, "interpolation", ["nearest": .nearest, "bilinear": .bilinear, "bicubic": .bicubic, "lanczos": .lanczos]),
        cropRounding: try choice(f, "crop_rounding", ["even": .even, "down": .down]),
        fill: try numbers(f, "fill").map { UInt8($0) }, divisor: Float(try number(f, "divisor")),
        mean: try numbers(f, "mean").map { Float($0) }, std: try numbers(f, "std").map { Float($0) })
    let pixels = try ConformancePixels(width: shape[1], height: shape[0], rgb: arrays.bytes(try value(f, "pixels")))
    let found = ImageProcessor(options).tensor(pixels)
    return near(found, arrays.floats(try value(f, "expected")), try value(f, "tolerance"))
}

func audio(_ f: Fields, _ arrays: Arrays) throws -> Bool {
    let options = AudioOptions(
        samples: try size(f, "samples"), frame: try size(f, "frame"), hop: try size(f, "hop"), fft: try size(f, "fft"),
        centered: try value(f, "centered") == "true", padding: try choice(f, "padding", ["reflect": .reflect, "zero": .zero]),
        power: try number(f, "power"), mels: try size(f, "mels"),
        log: try choice(f, "log", ["log": .log, "log10": .log10, "db": .db]), floor: try number(f, "floor"),
        dropLast: try value(f, "drop_last") == "true", range: try value(f, "range").isEmpty ? nil : try number(f, "range"),
        mean: try number(f, "mean"), std: try number(f, "std"),
        layout: try choice(f, "layout", ["mel_time": .melTime, "time_mel": .timeMel]))
    let tables = arrays.doubles(try value(f, "tables_window")) + arrays.doubles(try value(f, "tables_filters"))
    let bytes = tables.flatMap { table in (0..<8).map { UInt8(truncatingIfNeeded: table.bitPattern >> UInt64(8 * $0)) } }
    let found = AudioProcessor(options, tables: Data(bytes)).tensor(arrays.floats(try value(f, "sound")))
    return near(found, arrays.floats(try value(f, "expected")), try value(f, "tolerance"))
}

func series(_ f: Fields, _ arrays: Arrays) throws -> Bool {
    let options = SeriesOptions(
        channels: try size(f, "channels"), steps: try size(f, "steps"),
        keep: try choice(f, "keep", ["last": .last, "first": .first]), pad: try number(f, "pad"),
        scaling: try choice(
            f, "scaling", ["none": .none, "standard": .standard, "instance": .instance, "minmax": .minmax]),
        mean: try numbers(f, "mean"), std: try numbers(f, "std"), low: try numbers(f, "low"), high: try numbers(f, "high"),
        epsilon: try number(f, "epsilon"))
    let found = try SeriesProcessor(options).tensor(arrays.floats(try value(f, "series")))
    return near(found, arrays.floats(try value(f, "expected")), try value(f, "tolerance"))
}

func classes(_ f: Fields, _ arrays: Arrays) throws -> Bool {
    let found = ConformanceClassScores(
        arrays.floats(try value(f, "values")), labels: split(try value(f, "labels"), ","),
        activation: try choice(f, "activation", ["none": .none, "softmax": .softmax, "sigmoid": .sigmoid]),
        threshold: Float(try number(f, "threshold")))
    let above = split(try value(f, "above"), ",")
    return near(found.scores, arrays.floats(try value(f, "expected")), try value(f, "tolerance"))
        && found.label ?? "" == f["label"] && found.above == above
}

func vector(_ f: Fields, _ arrays: Arrays) throws -> Bool {
    let values = try value(f, "values")
    let found = embedding(
        arrays.floats(values), width: arrays.shape(values).last ?? 0,
        pooling: try choice(f, "pooling", ["none": .none, "mean": .mean, "max": .max, "cls": .cls]),
        normalize: try value(f, "normalize") == "true", mask: f["mask"].map(arrays.ints))
    return near(found, arrays.floats(try value(f, "expected")), try value(f, "tolerance"))
}

/// Whether a text has these ids, given as bytes and given as a string.
func text(_ tokenizer: WordPiece, _ hexadecimal: String, _ wanted: [Int]) -> Bool {
    let digits = hexadecimal.compactMap(\.hexDigitValue)
    let bytes = stride(from: 0, to: digits.count, by: 2).map { UInt8(16 * digits[$0] + digits[$0 + 1]) }
    let whole = tokenizer.encode(String(decoding: bytes, as: UTF8.self))
    let ids = zip(whole.ids, whole.mask).filter { $0.1 == 1 }.map(\.0)
    return tokenizer.tokens(utf8: bytes) == wanted && ids == wanted
}

var counts: [String: (cases: Int, differences: Int)] = [:]

func note(_ kind: String, _ name: String, _ same: Bool) {
    counts[kind, default: (0, 0)].cases += 1
    if same { return }
    counts[kind, default: (0, 0)].differences += 1
    print("\(kind): \(name)")
}

let arguments = CommandLine.arguments
let folder = arguments[3]
let tokenizer = WordPiece(
    vocabulary: try file(arguments[1]), tables: try file(arguments[2]),
    options: WordPieceOptions(
        lowercase: true, stripAccents: true, cleanText: true, handleChineseChars: true, prefix: "##", maxChars: 100,
        unk: 100, cls: 101, sep: 102, pad: 0,
        special: [("[PAD]", 0), ("[UNK]", 100), ("[CLS]", 101), ("[SEP]", 102), ("[MASK]", 103)], maxTokens: 128))
for line in try lines(folder + "/text.tsv") {
    let parts = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
    note("text", String(parts[0].prefix(60)), text(tokenizer, parts[0], split(parts[1], " ").compactMap { Int($0) }))
}
let arrays = Arrays(content: Array(try file(folder + "/cases.bin")))
let kinds = ["image": image, "audio": audio, "series": series, "classes": classes, "embedding": vector]
for line in try lines(folder + "/cases.tsv") {
    var fields: Fields = [:]
    for pair in split(line, "\t") {
        let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        fields[parts[0]] = parts[1]
    }
    let run = try choice(fields, "kind", kinds)
    note(try value(fields, "kind"), try value(fields, "case"), try run(fields, arrays))
}
print(
    counts.sorted { $0.key < $1.key }
        .map { "\($0.key): \($0.value.cases) cases, \($0.value.differences) differences" }
        .joined(separator: "; "))
exit(counts.values.allSatisfy { $0.differences == 0 } ? 0 : 1)
