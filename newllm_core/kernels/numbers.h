/* Numbers: rounding and exponentials that compilers turn into vector instructions. */

static inline float VARIANT(load_float32)(float value) { return value; }
static inline float VARIANT(store_float32)(float value) { return value; }

static inline float VARIANT(load_bfloat16)(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

/* To the nearest, ties to even, as torch rounds. */
static inline uint16_t VARIANT(store_bfloat16)(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* 2^t for t <= 0, with a relative error below 3e-7 (Taylor series of degree 6 in ln 2 on
   [-1/2, 1/2]); 2^-126, the least normal number, is as small as it gets. NaN stays NaN. */
static inline float VARIANT(power_of_two)(float t)
{
    t = t < -126.0f ? -126.0f : t;
    float whole = rintf(t);
    float part = t - whole;
    float power = 1.5403530e-4f;
    power = fmaf(power, part, 1.3333558e-3f);
    power = fmaf(power, part, 9.6181291e-3f);
    power = fmaf(power, part, 5.5504109e-2f);
    power = fmaf(power, part, 2.4022651e-1f);
    power = fmaf(power, part, 6.9314718e-1f);
    power = fmaf(power, part, 1.0f);
    int32_t bits;
    memcpy(&bits, &power, sizeof bits);
    bits += (int32_t)whole * (1 << 23);
    memcpy(&power, &bits, sizeof power);
    return power;
}
