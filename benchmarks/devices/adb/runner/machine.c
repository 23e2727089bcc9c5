#include "machine.h"

enum { MOST_CORES = 64, MOST_ZONES = 256 };

/* A file of /sys without the line's end; false where it is missing, forbidden or empty. */
__attribute__((format(printf, 2, 3))) static bool read_line(char line[128], const char *format, ...) {
    char path[256];
    va_list values;
    va_start(values, format);
    vsnprintf(path, sizeof path, format, values);
    va_end(values);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t got = read(file, line, 127);
    close(file);
    line[got > 0 ? got : 0] = 0;
    for (char *c = line; *c; c++)
        if (*c == '\n') *c = 0;
    return *line != 0;
}

static bool read_figure(double *figure, const char *path_start, const char *path_end) {
    char line[128], *end = line;
    if (!read_line(line, "%s%s", path_start, path_end)) return false;
    *figure = strtod(line, &end);
    return end != line;
}

/* The hottest zone that is a processor's, or the hottest of all where none says so. */
static bool hottest(const char *sys, double *celsius) {
    bool found = false, found_cpu = false;
    for (int zone = 0; zone < MOST_ZONES; zone++) {
        char type[128], line[128];
        if (!read_line(type, "%s/class/thermal/thermal_zone%d/type", sys, zone)) break;
        if (!read_line(line, "%s/class/thermal/thermal_zone%d/temp", sys, zone)) continue;
        double value = strtod(line, NULL);
        value = value > 1000 || value < -1000 ? value / 1000 : value > 200 ? value / 10 : value; /* some tell tenths */
        bool cpu = strstr(type, "cpu") || strstr(type, "CPU") || strstr(type, "x86_pkg") || strstr(type, "soc");
        if (value <= -40 || value > 150) continue; /* a sensor that is off tells -40, -273 or 255 */
        if (found_cpu && !cpu) continue;
        if (!found || (cpu && !found_cpu) || value > *celsius) *celsius = value;
        found = true;
        found_cpu = found_cpu || cpu;
    }
    return found;
}

/* Cores that may not reach their highest frequency, and cooling devices at work. */
static void throttled_text(Text *text, const char *sys) {
    Text flags = {0};
    bool told = false;
    text_clear(&flags);
    for (int core = 0; core < MOST_CORES; core++) {
        char highest[128], allowed[128];
        if (!read_line(highest, "%s/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", sys, core)) continue;
        if (!read_line(allowed, "%s/devices/system/cpu/cpu%d/cpufreq/scaling_max_freq", sys, core)) continue;
        told = true;
        if (strtod(allowed, NULL) < strtod(highest, NULL))
            text_add(&flags, "%s\"cpu%d capped at %.0f of %.0f kHz\"", flags.length ? "," : "", core,
                     strtod(allowed, NULL), strtod(highest, NULL));
    }
    for (int device = 0; device < MOST_ZONES; device++) {
        char type[128], state[128];
        if (!read_line(type, "%s/class/thermal/cooling_device%d/type", sys, device)) break;
        if (!strstr(type, "cpufreq") && !strstr(type, "cpu")) continue;
        if (!read_line(state, "%s/class/thermal/cooling_device%d/cur_state", sys, device)) continue;
        told = true;
        if (strtod(state, NULL) > 0) {
            text_add(&flags, "%s", flags.length ? "," : "");
            Text flag = {0};
            text_add(&flag, "%s at %s", type, state);
            text_string(&flags, flag.bytes);
            free(flag.bytes);
        }
    }
    if (told)
        text_add(text, "[%s]", flags.bytes);
    else
        text_add(text, "null");
    free(flags.bytes);
}

static void governor_text(Text *text, const char *sys) {
    char first[128] = "";
    for (int core = 0; core < MOST_CORES; core++) {
        char governor[128];
        if (!read_line(governor, "%s/devices/system/cpu/cpu%d/cpufreq/scaling_governor", sys, core)) continue;
        if (*first && strcmp(first, governor)) {
            text_add(text, "\"mixed\"");
            return;
        }
        memcpy(first, governor, sizeof first);
    }
    if (*first)
        text_string(text, first);
    else
        text_add(text, "null");
}

void condition_text(Text *text, const char *sys, const char *when, int64_t at_ns) {
    int64_t khz[MOST_CORES];
    size_t cores = 0;
    for (int core = 0; core < MOST_CORES; core++) {
        char line[128];
        if (read_line(line, "%s/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", sys, core))
            khz[cores++] = (int64_t)strtod(line, NULL);
    }
    text_add(text, "{\"event\":\"condition\",\"at_ns\":%lld,\"when\":\"%s\"", (long long)at_ns, when);
    text_add(text, ",\"frequencies_khz\":");
    text_numbers(text, khz, cores);
    text_add(text, ",\"governor\":");
    governor_text(text, sys);
    double celsius = 0, load = 0;
    text_add(text, ",\"temperature_c\":");
    if (hottest(sys, &celsius))
        text_add(text, "%.3f", celsius);
    else
        text_add(text, "null");
    text_add(text, ",\"throttled\":");
    throttled_text(text, sys);
    if (read_figure(&load, "/proc", "/loadavg"))
        text_add(text, ",\"load\":%.2f}\n", load);
    else
        text_add(text, ",\"load\":null}\n");
}

Battery battery_read(const char *sys) {
    char folder[256], status[128];
    snprintf(folder, sizeof folder, "%s/class/power_supply/battery", sys);
    Battery battery = {0};
    battery.told = (read_figure(&battery.charge_uah, folder, "/charge_counter") ||
                    read_figure(&battery.charge_uah, folder, "/charge_now")) &&
                   read_figure(&battery.voltage_uv, folder, "/voltage_now");
    battery.discharging = read_line(status, "%s/status", folder) && !strcmp(status, "Discharging");
    return battery;
}

static int64_t kilobytes_of(const char *path, const char *field) {
    Text text = {0};
    int64_t found = -1;
    if (text_read(&text, path)) {
        const char *at = strstr(text.bytes, field);
        if (at) found = (int64_t)strtod(at + strlen(field), NULL) * 1024;
    }
    free(text.bytes);
    return found;
}

int64_t status_bytes(const char *field) { return kilobytes_of("/proc/self/status", field); }

int64_t available_bytes(void) { return kilobytes_of("/proc/meminfo", "MemAvailable:"); }

bool drop_from_page_cache(const char *path) {
    enum { PAGE = 4096 }; /* a page is larger where it is not this: some entries are then not looked at */
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    off_t size = lseek(file, 0, SEEK_END);
    bool dropped = size > 0 && posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0;
    if (dropped) {
        size_t pages = ((size_t)size + PAGE - 1) / PAGE;
        unsigned char *resident = grown(NULL, pages);
        memset(resident, 0, pages);
        void *mapped = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, file, 0);
        dropped = mapped != MAP_FAILED && mincore(mapped, (size_t)size, resident) == 0;
        for (size_t i = 0; dropped && i < pages; i++) dropped = !(resident[i] & 1);
        if (mapped != MAP_FAILED) munmap(mapped, (size_t)size);
        free(resident);
    }
    close(file);
    return dropped;
}

bool pin_to(const int *cores, size_t count) {
    unsigned long mask[16] = {0};
    for (size_t i = 0; i < count; i++) {
        if (cores[i] < 0 || cores[i] >= (int)sizeof mask * 8) return false;
        mask[cores[i] / 64] |= 1UL << cores[i] % 64;
    }
    return sched_setaffinity(0, sizeof mask, (const cpu_set_t *)mask) == 0;
}
