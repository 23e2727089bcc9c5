// What the Swift library uses of Core Graphics, declared as Apple's documentation has it; it draws at the same size only.
import Foundation

public struct CGColorSpace {
    public static let sRGB = "kCGColorSpaceSRGB"

    public init?(name: String) {
        if name != CGColorSpace.sRGB { return nil }
    }
}

public enum CGImageAlphaInfo: UInt32 { case none, premultipliedLast, premultipliedFirst, last, first, noneSkipLast, noneSkipFirst, alphaOnly }

/// A picture of red, green, blue and alpha, which does not count in the colours.
public final class CGImage {
    public let width: Int
    public let height: Int
    let rgba: [UInt8]

    public init(width: Int, height: Int, rgba: [UInt8]) {
        self.width = width
        self.height = height
        self.rgba = rgba
    }
}

public final class CGContext {
    private let pixels: UnsafeMutablePointer<UInt8>
    private let bytesPerRow: Int

    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int, space: CGColorSpace,
        bitmapInfo: UInt32
    ) {
        guard let data, bitsPerComponent == 8, bytesPerRow >= 4 * width, bitmapInfo == CGImageAlphaInfo.premultipliedLast.rawValue
        else { return nil }
        pixels = data.bindMemory(to: UInt8.self, capacity: bytesPerRow * height)
        self.bytesPerRow = bytesPerRow
    }

    public func draw(_ image: CGImage, in rect: CGRect) {
        precondition(Int(rect.width) == image.width && Int(rect.height) == image.height)
        for y in 0..<image.height {
            for x in 0..<image.width {
                let (from, to) = (4 * (y * image.width + x), y * bytesPerRow + 4 * x)
                let alpha = Int(image.rgba[from + 3])
                for c in 0..<3 { pixels[to + c] = UInt8((Int(image.rgba[from + c]) * alpha + 127) / 255) }
                pixels[to + 3] = UInt8(alpha)
            }
        }
    }
}
