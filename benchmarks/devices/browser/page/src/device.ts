// What the browser says of itself and of the machine; what it does not say is null or empty.

import { line, type Facts } from "./contract";

declare const ONNXRUNTIME_WEB_VERSION: string;
declare const LITERT_VERSION: string;

interface UserAgentData {
  mobile: boolean;
  platform: string;
  brands: { brand: string; version: string }[];
  getHighEntropyValues(hints: string[]): Promise<Record<string, unknown>>;
}

export async function facts(): Promise<Facts> {
  const data = (navigator as { userAgentData?: UserAgentData }).userAgentData;
  const hints = ["architecture", "bitness", "model", "platformVersion", "fullVersionList"];
  const values = data ? await data.getHighEntropyValues(hints) : {};
  const text = (name: string): string => line(values[name] ?? "", 100);
  const browser = browserName(data);
  const [os, model] = system(data, text);
  return {
    model: line([browser, model && `on ${model}`].filter(Boolean).join(" "), 200),
    family: isPhone(data) ? "phone" : "desktop",
    cpu: "",
    architecture: text("architecture") && line(`${text("architecture")} ${text("bitness")}-bit`, 100),
    cores: navigator.hardwareConcurrency || null,
    memory_bytes: null,
    os,
    executed: "browser",
    emulator: "",
    software: {
      browser,
      "onnxruntime-web": ONNXRUNTIME_WEB_VERSION,
      "@litertjs/core": LITERT_VERSION,
      "cross-origin isolated": crossOriginIsolated ? "yes" : "no",
    },
  };
}

function isPhone(data: UserAgentData | undefined): boolean {
  return data ? data.mobile : /Android|iPhone|iPad|Mobile/.test(navigator.userAgent);
}

function browserName(data: UserAgentData | undefined): string {
  const brands = data?.brands.filter(({ brand }) => !/not.?a.?brand/i.test(brand)) ?? [];
  const brand = brands.find((b) => b.brand !== "Chromium") ?? brands[0];
  if (brand) return line(`${brand.brand} ${brand.version}`, 100);
  const found =
    /(Firefox|FxiOS|CriOS|EdgiOS)\/(\d+)/.exec(navigator.userAgent) ??
    /(Version)\/([\d.]+).*Safari/.exec(navigator.userAgent);
  return found ? `${found[1] === "Version" ? "Safari" : found[1]} ${found[2]}` : line(navigator.userAgent, 100);
}

/** The operating system, and the device's name where the browser tells it. */
function system(data: UserAgentData | undefined, text: (name: string) => string): [string, string] {
  if (data) return [line(`${data.platform} ${text("platformVersion")}`, 100), text("model")];
  const found = /\(([^)]*)\)/.exec(navigator.userAgent)?.[1] ?? "";
  return [line(found, 100), /iPhone|iPad/.exec(found)?.[0] ?? ""];
}
