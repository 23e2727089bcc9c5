// What the Swift library uses of Core ML, declared as Apple's documentation has it, so that it compiles on Linux. This
// double knows no model: it answers inputs that are in the file POCKETSHIP_ANSWERS with the outputs beside them there.
import Foundation

public enum MLComputeUnits: Int { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }

open class MLModelConfiguration {
    open var computeUnits = MLComputeUnits.all

    public init() {}
}

public enum MLMultiArrayDataType: Int { case float32, int32 }

public protocol MLShapedArrayScalar {
    static var multiArrayDataType: MLMultiArrayDataType { get }
    init(_ number: Double)
    var number: Double { get }
}

extension Float: MLShapedArrayScalar {
    public static var multiArrayDataType: MLMultiArrayDataType { .float32 }
    public var number: Double { Double(self) }
}

extension Int32: MLShapedArrayScalar {
    public static var multiArrayDataType: MLMultiArrayDataType { .int32 }
    public var number: Double { Double(self) }
}

public protocol MLShapedArrayProtocol {
    associatedtype Scalar: MLShapedArrayScalar
    init<S: Sequence>(scalars: S, shape: [Int]) where S.Element == Scalar
    var shape: [Int] { get }
    var scalars: [Scalar] { get set }
}

public struct MLShapedArray<Scalar: MLShapedArrayScalar>: MLShapedArrayProtocol {
    public let shape: [Int]
    public var scalars: [Scalar]

    public init<S: Sequence>(scalars: S, shape: [Int]) where S.Element == Scalar {
        self.scalars = Array(scalars)
        self.shape = shape
        precondition(self.scalars.count == shape.reduce(1, *))
    }

    public init(converting array: MLMultiArray) {
        self.init(scalars: array.numbers.map { Scalar($0) }, shape: array.shape.map(\.intValue))
    }
}

public class MLMultiArray {
    public let shape: [NSNumber]
    public let dataType: MLMultiArrayDataType
    let numbers: [Double]

    public init<ShapedArray: MLShapedArrayProtocol>(_ array: ShapedArray) {
        shape = array.shape.map { NSNumber(value: $0) }
        dataType = ShapedArray.Scalar.multiArrayDataType
        numbers = array.scalars.map(\.number)
    }

    init(_ answer: Answer) {
        shape = answer.shape.map { NSNumber(value: $0) }
        dataType = answer.dtype == "float32" ? .float32 : .int32
        numbers = answer.values.map { $0 ?? .nan }
    }
}

open class MLFeatureValue {
    open private(set) var multiArrayValue: MLMultiArray?

    init(_ array: MLMultiArray?) {
        multiArrayValue = array
    }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: MLFeatureProvider {
    let values: [String: MLFeatureValue]

    public init(dictionary: [String: Any]) throws {
        values = dictionary.mapValues { MLFeatureValue($0 as? MLMultiArray) }
    }

    public var featureNames: Set<String> { Set(values.keys) }

    public func featureValue(for featureName: String) -> MLFeatureValue? { values[featureName] }
}

/// A tensor of the answers; null stands for NaN.
struct Answer: Decodable {
    let dtype: String
    let shape: [Int]
    let values: [Double?]

    func matches(_ array: MLMultiArray?) -> Bool {
        let wanted = MLMultiArray(self)
        return array?.dataType == wanted.dataType && array?.shape == wanted.shape && array?.numbers == wanted.numbers
    }
}

struct Sample: Decodable {
    let inputs: [String: Answer]
    let outputs: [String: Answer]
}

struct Unlike: Error {
    let why: String
}

open class MLModel {
    private let samples: [Sample]

    /// The folder of a compiled model, for which there is an .mlpackage.
    public class func compileModel(at url: URL) async throws -> URL {
        guard FileManager.default.fileExists(atPath: url.appendingPathComponent("Manifest.json").path) else {
            throw Unlike(why: "\(url.path) is no .mlpackage")
        }
        let made = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString + ".mlmodelc")
        try FileManager.default.createDirectory(at: made, withIntermediateDirectories: true)
        return made
    }

    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
        guard url.pathExtension == "mlmodelc", FileManager.default.fileExists(atPath: url.path) else {
            throw Unlike(why: "\(url.path) is no compiled model")
        }
        let answers = ProcessInfo.processInfo.environment["POCKETSHIP_ANSWERS"] ?? ""
        samples = try JSONDecoder().decode([Sample].self, from: Data(contentsOf: URL(fileURLWithPath: answers)))
    }

    public func prediction(from input: MLFeatureProvider) throws -> MLFeatureProvider {
        for sample in samples where input.featureNames == Set(sample.inputs.keys) {
            if sample.inputs.allSatisfy({ $0.value.matches(input.featureValue(for: $0.key)?.multiArrayValue) }) {
                return try MLDictionaryFeatureProvider(dictionary: sample.outputs.mapValues { MLMultiArray($0) })
            }
        }
        throw Unlike(why: "no answer has these inputs: \(input.featureNames.sorted())")
    }
}
